"""Files sorted into folders, <split>/<label>/<file>, below a folder or an S3 prefix: what images and sound have in common.

Files that can't be decoded are counted, named and skipped, up to `maxUnreadableFraction` of their split. What is in S3 is
copied once per pod. How a file is decoded, and whether a set may lie in memory, is the format's business (`data/`).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from kompress_api.errors import DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs.data import HELD_OUT, MemorySplit, Split, cut
from kompress_jobs.data_place import open_place
from kompress_jobs.samples import Samples, join

THREADS = 8
CHUNK = 512
"""Files that are decoded at once for a set that lies in memory."""


@dataclass(frozen=True)
class Medium:
    """What the files are."""

    noun: str
    """As errors call one."""
    suffixes: frozenset[str]
    """Endings of their names; other files are not looked at."""


@dataclass(frozen=True)
class Listing:
    """The files of one split."""

    name: str
    paths: list[str]
    """Relative to the data set's root."""
    labels: list[int]


@dataclass(frozen=True)
class Folder:
    """A data set as files on the local disk."""

    medium: Medium
    classes: list[str]
    listings: dict[str, Listing]
    """train, validation, test."""
    root: Path
    everything: list[Path]
    """All files of the three splits; in S3 those that were not asked for are not there."""
    most_unreadable: float
    where: str
    """Field of the manifest that errors name."""

    @property
    def files(self) -> list[Path]:
        """Those that were asked for."""
        return [self.root / path for listing in self.listings.values() for path in listing.paths]

    def splits(
        self, decode: Callable[[Path], torch.Tensor | None], gather: Callable[[list[torch.Tensor]], Samples], *, keep: bool
    ) -> tuple[dict[str, Split], dict[str, list[str]]]:
        """The splits, in memory (`keep`) or decoded when asked for; and of each the files that turned out to be unreadable."""
        lazy = {
            split: FolderSplit(listing, self.root, decode, gather, self.medium.noun, self.most_unreadable, self.where)
            for split, listing in self.listings.items()
        }
        splits: dict[str, Split] = {name: in_memory(split) if keep else split for name, split in lazy.items()}
        return splits, {name: split.unreadable for name, split in lazy.items()}


def open_folder(dataset: Dataset, scratch: Path, medium: Medium, *, field: str, first: int | None) -> Folder:
    """List the folder and bring its files, or about the `first` ones of each split. Raises DataUnreadable with the folder at fault."""
    place = open_place(dataset, scratch, field=field)
    where = f"{field}.source"
    classes, train = list_split(place.paths, dataset.splits.train, None, dataset.source, where, medium)
    listings = {"train": train}
    for split in ("validation", "test"):
        name = getattr(dataset.splits, split)
        if any(path.startswith(f"{name}/") for path in place.paths):
            listings[split] = list_split(place.paths, name, classes, dataset.source, where, medium)[1]
        else:
            listings["train"], listings[split] = hold_out(listings["train"], name)
    everything = [path for listing in listings.values() for path in listing.paths]
    if first is not None:
        listings = {split: thinned(listing, first) for split, listing in listings.items()}
    root = place.bring([path for listing in listings.values() for path in listing.paths])
    most = dataset.max_unreadable_fraction if first is None else 1.0
    return Folder(medium, classes, listings, root, [root / path for path in everything], most, where)


def list_split(
    paths: list[str], name: str, expected: list[str] | None, source: str, where: str, medium: Medium
) -> tuple[list[str], Listing]:
    """The classes and files below `<name>/`; with `expected` the classes must be these."""
    shown = f"{source}/{name}"
    own = [path for path in paths if path.startswith(f"{name}/") and path.count("/") > name.count("/") + 1]
    folder = [path.removeprefix(f"{name}/").partition("/")[0] for path in own]
    classes = sorted(set(folder))
    if not classes:
        raise DataUnreadable(
            f"{shown} holds no label folder with files",
            hint=f"put {medium.noun}s at {shown}/<label>/<file>, or set dataset.splits",
            field=where,
        )
    if expected is not None and classes != expected:
        strange = sorted(set(classes) ^ set(expected))[0]
        side = "is a label that train does not have" if strange in classes else "is missing: train has this label"
        raise DataUnreadable(
            f"the labels differ between splits: {shown}/{strange} {side}", hint="give every split the same label folders", field=where
        )
    found = [(path, classes.index(label)) for path, label in zip(own, folder, strict=True) if Path(path).suffix.lower() in medium.suffixes]
    for index, label in enumerate(classes):
        if not any(number == index for _, number in found):
            known = ", ".join(sorted(medium.suffixes))
            raise DataUnreadable(f"{shown}/{label} holds no {medium.noun}", hint=f"known endings: {known}", field=where)
    return classes, Listing(name, [path for path, _ in found], [number for _, number in found])


def hold_out(train: Listing, name: str) -> tuple[Listing, Listing]:
    """Cut a missing split from train by hash of the path within it."""
    kept, held = cut([path.removeprefix(f"{train.name}/") for path in train.paths], train.labels, HELD_OUT)
    return part(train, kept, train.name), part(train, held, name)


def thinned(listing: Listing, count: int) -> Listing:
    """About `count` samples, at least one of each class."""
    classes = max(listing.labels) + 1
    each = max(1, count // classes)
    seen = [0] * classes
    chosen = []
    for index, label in enumerate(listing.labels):
        seen[label] += 1
        if seen[label] <= each:
            chosen.append(index)
    return part(listing, chosen, listing.name)


def part(listing: Listing, chosen: list[int], name: str) -> Listing:
    """Some of the samples."""
    return Listing(name, [listing.paths[index] for index in chosen], [listing.labels[index] for index in chosen])


@dataclass
class FolderSplit:
    """A split that is decoded when it is asked for."""

    listing: Listing
    root: Path
    decode: Callable[[Path], torch.Tensor | None]
    """A file's sample; None when it can't be read."""
    gather: Callable[[list[torch.Tensor]], Samples]
    """Decoded samples, none among them perhaps, as one."""
    noun: str
    most_unreadable: float
    where: str
    unreadable: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.labels = torch.tensor(self.listing.labels)
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")

    @property
    def names(self) -> list[str]:
        """The files, below the data set's root."""
        return self.listing.paths

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: torch.Tensor) -> tuple[Samples, torch.Tensor]:
        """Decode these samples; raises DataUnreadable when more than the allowed share of the split was unreadable so far."""
        paths = [self.root / self.listing.paths[index] for index in indices.tolist()]
        decoded = list(self.pool.map(self.decode, paths))
        for path, sample in zip(paths, decoded, strict=True):
            if sample is None and str(path) not in self.unreadable:
                self.unreadable.append(str(path))
        if len(self.unreadable) > self.most_unreadable * len(self):
            raise DataUnreadable(
                f"{len(self.unreadable)} of {len(self)} {self.noun}s of split {self.listing.name} can't be read, "
                f"more than {self.most_unreadable:.2%}; the first is {self.unreadable[0]}",
                hint="repair or remove them, or raise dataset.maxUnreadableFraction",
                field=self.where,
            )
        found = [position for position, sample in enumerate(decoded) if sample is not None]
        return self.gather([sample for sample in decoded if sample is not None]), torch.tensor(found, dtype=torch.int64)


def in_memory(split: FolderSplit) -> MemorySplit:
    """Decode everything; what can't be read is left out."""
    parts, kept = [], []
    for chunk in torch.arange(len(split)).split(CHUNK):
        samples, found = split.read(chunk)
        parts.append(samples)
        kept.append(chunk[found])
    rows = torch.cat(kept)
    return MemorySplit(join(parts), split.labels[rows], [split.names[row] for row in rows.tolist()])
