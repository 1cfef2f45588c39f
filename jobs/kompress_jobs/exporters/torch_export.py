"""TorchExport: the graph as torch.export keeps it (.pt2), run by PyTorch without the code that made the model.

An archive may hold pickles and compiled libraries, which would be executed when it is read. Ours hold none, and any that does is refused.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kompress_api.errors import UnsafeFile
from kompress_jobs.engine import Engine

if TYPE_CHECKING:
    from torch import nn

    from kompress_jobs.preprocessing import Preprocessing

SUFFIX = ".pt2"
METADATA = "kompress"
"""Name of the extra file: labels and preprocessing, as JSON."""
PLAIN = ("archive_format", "archive_version", "byteorder", "version", ".data/", ".format/", "models/", "extra/")
"""What is read as text or not at all, below the archive's first folder."""
PAYLOADS = ("data/weights/", "data/constants/")
"""Folders of raw bytes, with a table in JSON that says what they are."""
EXAMPLES = "data/sample_inputs/"


def lower(model: "nn.Module", preprocessing: "Preprocessing", path: Path, *, batch: int | None, metadata: Mapping[str, Any]) -> None:
    """Write `model` (evaluation mode, CPU) to `path`; `batch` is the only batch size that the file takes, None: any."""
    import torch

    from kompress_jobs.modules.capture import capture

    program = capture(model, preprocessing, batch)
    program.example_inputs = None  # they would be a pickle
    torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata, sort_keys=True)})


def open_engine(path: Path, threads: int) -> Engine:
    """PyTorch on the CPU."""
    import torch

    from kompress_jobs.modules.torch_engine import engine

    refuse_code(path)
    return engine(torch.export.load(path).module(), threads)


def open_on_gpu(path: Path) -> Engine:
    """PyTorch on the GPU; the graph's own constants and devices move with the weights."""
    import torch
    from torch.export.passes import move_to_device_pass

    from kompress_jobs.modules.torch_engine import engine_on_gpu

    refuse_code(path)
    return engine_on_gpu(move_to_device_pass(torch.export.load(path), "cuda").module())


def refuse_code(path: Path) -> None:
    """Raise UnsafeFile for an archive of which torch.export.load would unpickle or execute a part."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        found = next((entry.filename for entry in entries if not _harmless(archive, entry)), None)
    if found is not None or len({entry.filename for entry in entries}) < len(entries):
        raise UnsafeFile(
            f"{path.name} holds {found or 'two entries of one name'}, which would be executed when it is read",
            hint="export the model again with kompress; other archives may run anything",
        )


def _harmless(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    name = entry.filename.partition("/")[2]
    if name.startswith(EXAMPLES):
        return entry.file_size == 0
    if not name.startswith(PAYLOADS):
        return name.startswith(PLAIN)
    if not name.endswith(".json"):
        return not name.endswith(".pt")  # the form of old archives
    table = json.loads(archive.read(entry))["config"]
    return all(not row["use_pickle"] and row["path_name"].startswith(("weight_", "tensor_")) for row in table.values())
