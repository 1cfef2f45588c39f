"""Labelled samples: three splits with one label map, however they are stored.

The module that reads them is named by `dataset.format` (imagefolder, audiofolder, parquet, ...), or by the scheme of `dataset.source` where
there is no format (builtin). Each has `load(dataset, scratch, field, first) -> Data`. Splits
are cut by hash, so they are the same on every machine and in every process.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch

from kompress_api.errors import DataUnreadable, MethodRefused
from kompress_api.places import Dataset
from kompress_jobs import registry
from kompress_jobs.samples import Samples, pick

HELD_OUT = 0.1
"""Share of train that a missing split is cut from it."""


class Split(Protocol):
    """Samples of one split; `read` may be called from another thread. Where its samples have names, `names` holds them, by position."""

    labels: torch.Tensor
    """(samples,), int64; where a sample may carry several labels (samples, labels), bool; of transcripts (samples, longest), int64, see
    `transcripts`."""

    def __len__(self) -> int: ...

    def read(self, indices: torch.Tensor) -> tuple[Samples, torch.Tensor]:
        """Samples, and the positions in `indices` that could be read, (found,)."""


def names_of(split: Split) -> Sequence[str]:
    """What people call a split's samples; empty where they have no names."""
    found: Sequence[str] = getattr(split, "names", ())
    return found


def called(split: Split, row: int) -> str:
    """A sample's name, else its position."""
    names = names_of(split)
    return str(names[row]) if names else f"sample {row}"


@dataclass
class MemorySplit:
    """A split that lies in memory."""

    samples: Samples
    labels: torch.Tensor
    names: Sequence[str] = ()
    """What people call the samples, such as their files; empty: nothing."""

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: torch.Tensor) -> tuple[Samples, torch.Tensor]:
        return pick(self.samples, indices), torch.arange(len(indices))


@dataclass
class View:
    """Another split, of which something is given out in another way."""

    stored: Split

    @property
    def labels(self) -> torch.Tensor:
        return self.stored.labels

    @property
    def names(self) -> Sequence[str]:
        """As they are stored."""
        return names_of(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def read(self, indices: torch.Tensor) -> tuple[Samples, torch.Tensor]:
        return self.stored.read(indices)


@dataclass
class Relabelled(View):
    """A split whose labels are counted in another order."""

    numbers: torch.Tensor
    """Label of the stored split -> label here, (classes,), int64."""

    @property
    def labels(self) -> torch.Tensor:
        return self.numbers[self.stored.labels]


@dataclass(frozen=True)
class Data:
    """A data set with its splits."""

    labels: list[str]
    """Class names; a sample's label is an index into it. Of transcripts: what each token is."""
    train: Split
    validation: Split
    test: Split
    image_size: int = 0
    """Of images: side in pixels. Of sound: side that spectrograms are stretched to, 0: as they come."""
    channels: int = 0
    """Of images: 1 or 3."""
    max_length: int = 0
    """Of texts: most tokens that are asked for; 0: the model's own limit."""
    sample_rate: int = 0
    """Of sound: samples a second."""
    clip_samples: int = 0
    """Of sound: samples that every clip is cut or filled up to."""
    unreadable: dict[str, list[str]] = field(default_factory=dict)
    """Split -> paths that were skipped."""

    @property
    def multi_label(self) -> bool:
        """Whether a sample may carry several labels."""
        return self.train.labels.ndim == 2 and not self.transcribed

    @property
    def transcribed(self) -> bool:
        """Whether a sample has a transcript."""
        return self.train.labels.ndim == 2 and self.train.labels.dtype != torch.bool

    @property
    def absent(self) -> list[str]:
        """Labels that the data set names and no training sample has."""
        if self.transcribed:
            return []
        return [label for label, count in zip(self.labels, counts(self.train.labels, self.labels), strict=True) if not count]


def load(dataset: Dataset, scratch: Path, *, field: str = "spec.dataset", first: int | None = None, transcripts: bool = False) -> Data:
    """Read a data set, or as much of it as lies in memory; with `first` about that many samples of each split (preflight).

    With `transcripts` the label column holds what is said.

    Raises DataUnreadable with the file or folder, UnknownMethod for a format that is not built, StorageUnavailable.
    """
    scheme = dataset.source.partition("://")[0]
    name, where = (dataset.format, "format") if dataset.format is not None else (scheme, "source")
    module = registry.load("data", name, field=f"{field}.{where}")
    if transcripts:
        return load_transcripts(module, dataset, scratch, field=field, first=first)
    found: Data = module.load(dataset, scratch, field=field, first=first)
    if found.transcribed:
        raise MethodRefused(
            f"{dataset.source} holds transcripts, not labels", hint="use it with task speech-recognition", field=f"{field}.source"
        )
    if dataset.multi_label and found.train.labels.ndim == 1:
        raise MethodRefused(
            f"{name} has one label a sample", hint="leave multiLabel out, or give a table with lists of labels", field=f"{field}.multiLabel"
        )
    if dataset.max_length is not None:
        found = dataclasses.replace(found, max_length=dataset.max_length)
    absent = set(found.absent)
    seen = [label for label in found.labels if label not in absent]
    if len(seen) < 2 and not dataset.multi_label:
        raise DataUnreadable(
            f"{dataset.source} has one class only ({', '.join(seen)}): there is nothing to tell apart",
            hint="give at least two classes",
            field=f"{field}.source",
        )
    if first is None:
        require_learnable(found, field=field)
    return found


def load_transcripts(module: ModuleType, dataset: Dataset, scratch: Path, *, field: str, first: int | None) -> Data:
    """The data set with transcripts as targets; raises MethodRefused where the format has labels only."""
    hint = "use a table with a column of texts, python://, or builtin://phrases"
    if not getattr(module, "TRANSCRIPTS", False):
        raise MethodRefused(f"{dataset.format or 'it'} has one label a sample, no transcripts", hint=hint, field=f"{field}.format")
    if dataset.multi_label:
        raise MethodRefused("a transcript is no list of labels", hint="leave multiLabel out", field=f"{field}.multiLabel")
    found: Data = module.load(dataset, scratch, field=field, first=first, transcripts=True)
    if not found.transcribed:
        raise MethodRefused(f"{dataset.source} has one label a sample, no transcripts", hint=hint, field=f"{field}.source")
    return found


def require_learnable(data: Data, *, field: str) -> None:
    """Raise DataUnreadable for a label that is asked for in another split and of which train has no sample to learn from."""
    for name, split in (("validation", data.validation), ("test", data.test)):
        asked = counts(split.labels, data.labels)
        for label in data.absent:
            if asked[data.labels.index(label)]:
                raise DataUnreadable(
                    f"label {label} has samples in {name} and none that can be read in train: it can't be learned",
                    hint="give train samples of it, or take it out of the other splits",
                    field=f"{field}.source",
                )


def counts(labels: torch.Tensor, names: Sequence[str]) -> list[int]:
    """Samples of each label."""
    found: list[int] = (torch.bincount(labels, minlength=len(names)) if labels.ndim == 1 else labels.sum(0)).tolist()
    return found


def rank_of(name: str) -> float:
    """A number in [0, 1) that depends on the name alone; samples are ordered by it before a split is cut."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def cut(names: Sequence[str], labels: Sequence[int], share: float) -> tuple[list[int], list[int]]:
    """Indices (kept, cut): from each class the `share` of the samples that come first by hash, at least one where it has two."""
    classes: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        classes.setdefault(label, []).append(index)
    away: set[int] = set()
    for members in classes.values():
        count = min(max(round(len(members) * share), 1), len(members) - 1)
        away.update(sorted(members, key=lambda index: (rank_of(names[index]), names[index]))[:count])
    return [index for index in range(len(names)) if index not in away], sorted(away)
