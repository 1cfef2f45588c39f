"""A data set's splits as samples with labels, however they are stored; and how one that is missing is cut from another.

Splits are cut by hash, so they are the same on every machine and in every process.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

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
