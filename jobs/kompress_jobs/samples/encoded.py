"""Samples that are files (images, clips), wherever their bytes are: below a folder, or in the cells of a table.

Files that can't be decoded are counted, named and skipped, up to `maxUnreadableFraction` of their split.
"""

import abc
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch

from kompress_api.errors import DataUnreadable
from kompress_jobs.samples import Samples, join
from kompress_jobs.samples.splits import MemorySplit, Split

THREADS = 8
CHUNK = 512
"""Files that are decoded at once for a set that lies in memory."""
File = Path | Callable[[], BinaryIO]
"""Where its bytes are; the second for cells of a table, whose bytes are copied when they are looked at."""
Source = Path | BinaryIO
"""What libraries open."""
Decode = Callable[[Source], torch.Tensor | None]
"""A file's sample; None when it can't be read."""
Gather = Callable[[list[torch.Tensor]], Samples]
"""Decoded samples, none among them perhaps, as one."""


class Openable(Sequence[File]):
    """Files that are not on the disk: each is read when it is opened, by its position."""

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if index >= len(self):
            raise IndexError(index)  # what ends a loop over a sequence
        return functools.partial(self.open, index)

    @abc.abstractmethod
    def open(self, index: int) -> BinaryIO:
        """The content of one."""

    def bring(self, indices: Sequence[int]) -> None:
        """These are opened next: what is far away is brought at once."""


@dataclass(frozen=True)
class Medium:
    """What the files are."""

    noun: str
    """As errors call one."""
    suffixes: frozenset[str]
    """Endings of their names; other files are not looked at."""


@dataclass(frozen=True)
class Files:
    """The files of one split."""

    name: str
    files: Sequence[File]
    places: Sequence[str]
    """As errors call them."""
    labels: torch.Tensor
    """See `splits.Split`."""
    names: Sequence[str] = ()
    """What they are called wherever the data set is copied to; absent: `places`."""


@dataclass(frozen=True)
class Encoded:
    """A data set as files."""

    medium: Medium
    classes: list[str]
    splits: dict[str, Files]
    """train, validation, test; what was asked for."""
    everything: Sequence[File]
    """All files of the three splits; where only some were asked for, of a bucket those alone."""
    most_unreadable: float
    where: str
    """Field of the manifest that errors name."""

    def sampled(self, most: int) -> list[File]:
        """About `most` of those that were asked for, from all over the splits."""
        step = max(1, len(self) // most)
        return [split.files[index] for split in self.splits.values() for index in range(0, len(split.files), step)]

    def __len__(self) -> int:
        return sum(len(split.files) for split in self.splits.values())

    def decoded(self, decode: Decode, gather: Gather, *, keep: bool) -> tuple[dict[str, Split], dict[str, list[str]]]:
        """The splits, in memory (`keep`) or decoded when asked for; and of each the files that turned out to be unreadable."""
        lazy = {
            split: DecodedSplit(files, decode, gather, self.medium.noun, self.most_unreadable, self.where)
            for split, files in self.splits.items()
        }
        splits: dict[str, Split] = {name: in_memory(split) if keep else split for name, split in lazy.items()}
        return splits, {name: split.unreadable for name, split in lazy.items()}


def opened(file: File) -> Source:
    """What libraries can open."""
    return file if isinstance(file, Path) else file()


@dataclass
class DecodedSplit:
    """A split that is decoded when it is asked for."""

    encoded: Files
    decode: Decode
    gather: Gather
    noun: str
    most_unreadable: float
    where: str
    unreadable: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.labels = self.encoded.labels
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")

    @property
    def names(self) -> Sequence[str]:
        """What the files are called."""
        return self.encoded.names or self.encoded.places

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: torch.Tensor) -> tuple[Samples, torch.Tensor]:
        """Decode these samples; raises DataUnreadable when more than the allowed share of the split was unreadable so far."""
        chosen = indices.tolist()
        if isinstance(self.encoded.files, Openable):
            self.encoded.files.bring(chosen)
        decoded = list(self.pool.map(lambda index: self.decode(opened(self.encoded.files[index])), chosen))
        for index in (index for index, sample in zip(chosen, decoded, strict=True) if sample is None):
            if (told := self.told(index)) not in self.unreadable:
                self.unreadable.append(told)
        if len(self.unreadable) > self.most_unreadable * len(self):
            raise DataUnreadable(
                f"{len(self.unreadable)} of {len(self)} {self.noun}s of split {self.encoded.name} can't be read, "
                f"more than {self.most_unreadable:.2%}; the first is {self.unreadable[0]}",
                hint="repair or remove them, or raise dataset.maxUnreadableFraction",
                field=self.where,
            )
        found = [position for position, sample in enumerate(decoded) if sample is not None]
        return self.gather([sample for sample in decoded if sample is not None]), torch.tensor(found, dtype=torch.int64)

    def told(self, index: int) -> str:
        """What errors call a sample that can't be decoded; of a cell, whether anything could be read of it."""
        place, files = self.encoded.places[index], self.encoded.files
        return f"{place} (empty or damaged)" if isinstance(files, Openable) and not files.open(index).read(1) else place


def in_memory(split: DecodedSplit) -> MemorySplit:
    """Decode everything; what can't be read is left out."""
    parts, kept = [], []
    for chunk in torch.arange(len(split)).split(CHUNK):
        samples, found = split.read(chunk)
        parts.append(samples)
        kept.append(chunk[found])
    rows = torch.cat(kept)
    return MemorySplit(join(parts), split.labels[rows], [split.names[row] for row in rows.tolist()])
