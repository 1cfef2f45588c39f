"""The tensors of a checkpoint as safetensors, one file a rank; nothing is pickled.

torch.distributed.checkpoint plans who writes what and who reads which part of it; this is its storage. PyTorch brings two of
its own: `FileSystemWriter` pickles its metadata, `HuggingFaceStorageWriter` holds all tensors three times while it writes.
Here the files say all: the name of an entry is the tensor's name and where this part of it begins, as in `model.weight@0,0`,
its shape is the part's. So any number of processes can read what any number wrote, sharded tensors (FSDP2) too.
"""

import errno
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.checkpoint import (
    ChunkStorageMetadata,
    LoadPlan,
    LoadPlanner,
    Metadata,
    SavePlan,
    SavePlanner,
    StorageReader,
    StorageWriter,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

SUFFIX = ".safetensors"


def file_of(rank: int) -> str:
    """Name of the file that a rank writes, always exactly one."""
    return f"rank-{rank}{SUFFIX}"


def entry(name: str, offsets: Sequence[int]) -> str:
    """Name of a part of a tensor within a file."""
    return f"{name}@{','.join(map(str, offsets))}"


def parse(entry: str) -> tuple[str, torch.Size]:
    """Name and offsets of an entry."""
    name, _, offsets = entry.rpartition("@")
    return name, torch.Size([int(offset) for offset in offsets.split(",") if offset])


class TensorWriter(StorageWriter):
    """Writes this rank's file into a folder that is there."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        parts: dict[str, torch.Tensor] = {}
        for item in plan.items:
            if item.tensor_data is None:
                raise TypeError(f"{item.index.fqn} is no tensor: what a checkpoint keeps beside tensors belongs into `State.numbers`")
            # Staged copies are contiguous, so this copies nothing.
            parts[entry(item.index.fqn, item.tensor_data.chunk.offsets)] = planner.resolve_data(item).detach().contiguous()
        try:
            save_file(parts, self.folder / file_of(self.rank))
        except SafetensorError as error:  # a full disk, to which safetensors gives no number
            raise OSError(errno.EIO, str(error)) from error
        return _done([WriteResult(item.index, item.tensor_storage_size() or 0, file_of(self.rank)) for item in plan.items])

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Nothing: `TensorReader.read_metadata` finds all of it in the files."""

    def reset(self, checkpoint_id: str | PathLike[str] | None = None) -> None: ...

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None: ...

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | PathLike[str]) -> bool:
        return False


class TensorReader(StorageReader):
    """Reads the files of all ranks that lie in a folder, each part where it is wanted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[MetadataIndex, Path] = {}

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        chunks: dict[str, list[ChunkStorageMetadata]] = {}
        places: dict[MetadataIndex, Path] = {}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118  (no mapping)
                    name, offsets = parse(key)
                    chunks.setdefault(name, []).append(ChunkStorageMetadata(offsets, torch.Size(file.get_slice(key).get_shape())))
                    places[MetadataIndex(name, offsets)] = path
        # Loading looks at sizes only: a tensor's other properties are those of the one that is loaded into.
        whole = {name: TensorStorageMetadata(TensorProperties(), _whole(parts), parts) for name, parts in chunks.items()}
        return Metadata(dict(whole), storage_data=places)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self.places = metadata.storage_data

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        wanted = [(self.places[item.storage_index], item) for item in plan.items]
        for path in sorted({path for path, _ in wanted}):
            with safe_open(path, "pt") as file:
                for item in (item for place, item in wanted if place == path):
                    key = entry(item.storage_index.fqn, item.storage_index.offset or ())
                    box = tuple(slice(start, start + length) for start, length in zip(item.storage_offsets, item.lengths, strict=True))
                    target = planner.resolve_tensor(item).detach()
                    target.copy_(file.get_slice(key)[box] if box else file.get_tensor(key))
                    planner.commit_tensor(item, target)
        return _done(None)

    def reset(self, checkpoint_id: str | PathLike[str] | None = None) -> None: ...

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | PathLike[str]) -> bool:
        return False


def _whole(parts: list[ChunkStorageMetadata]) -> torch.Size:
    """Size of the tensor that the parts make up."""
    ends = [[start + size for start, size in zip(part.offsets, part.sizes, strict=True)] for part in parts]
    return torch.Size([max(end) for end in zip(*ends, strict=True)])


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
