"""Files sorted into folders, <split>/<label>/<file>, below a folder or an S3 prefix: what images and sound have in common.

What is in S3 comes when it is looked at. How a file is decoded, and whether a set may lie in memory, is the format's business (`data/`);
`encoded.py` does it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from kompress_api.errors import DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs.samples.data_place import Place, open_place
from kompress_jobs.samples.encoded import Encoded, Files, Medium
from kompress_jobs.samples.splits import HELD_OUT, cut


@dataclass(frozen=True)
class Listing:
    """The files of one split."""

    name: str
    paths: list[str]
    """Relative to the data set's root."""
    labels: list[int]


def open_folder(dataset: Dataset, scratch: Path, medium: Medium, *, field: str, first: int | None) -> Encoded:
    """List the folder, or about the `first` files of each split. Raises DataUnreadable with the folder at fault."""
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
    asked = listings if first is None else {split: thinned(listing, first) for split, listing in listings.items()}
    known = (listings if place.near else asked).values()
    everything = place.files([path for listing in known for path in listing.paths])
    most = dataset.max_unreadable_fraction if first is None else 1.0
    splits = {split: files_of(listing, place, dataset.source) for split, listing in asked.items()}
    return Encoded(medium, classes, splits, everything, most, where)


def files_of(listing: Listing, place: Place, source: str) -> Files:
    """The files of a split."""
    places = [f"{source.removeprefix('file://').rstrip('/')}/{path}" for path in listing.paths]
    return Files(listing.name, place.files(listing.paths), places, torch.tensor(listing.labels), listing.paths)


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
