"""imagefolder: <split>/<label>/<file> below a folder or an S3 prefix.

Files that can't be decoded are counted, named and skipped, up to `maxUnreadableFraction` of their split. A set that is
small decoded lies in memory; a larger one is decoded batch by batch. What is in S3 is copied once per pod.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from kompress_api.errors import DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs.data import HELD_OUT, Data, MemorySplit, Split, cut
from kompress_jobs.data_place import open_place

IN_MEMORY_BYTES = 512 * 2**20
"""Decoded bytes of all splits up to which they are kept in memory (each process holds its own copy)."""
DEFAULT_SIZE = 224
SIZES_READ = 2048
"""Images whose header is read to see whether all have one size."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
THREADS = 8


@dataclass(frozen=True)
class Listing:
    """The files of one split."""

    name: str
    paths: list[str]
    """Relative to the data set's root."""
    labels: list[int]


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None) -> Data:
    """Read the folder, or about the `first` samples of each split. Raises DataUnreadable with the file or folder at fault."""
    place = open_place(dataset, scratch)
    where = f"{field}.source"
    classes, train = list_split(place.paths, dataset.splits.train, None, dataset.source, where)
    listings = {"train": train}
    for split in ("validation", "test"):
        name = getattr(dataset.splits, split)
        if any(path.startswith(f"{name}/") for path in place.paths):
            listings[split] = list_split(place.paths, name, classes, dataset.source, where)[1]
        else:
            listings["train"], listings[split] = hold_out(listings["train"], name)
    if first is not None:
        listings = {split: thinned(listing, first) for split, listing in listings.items()}
    root = place.bring([path for listing in listings.values() for path in listing.paths])
    size = dataset.image_size or own_size([root / path for listing in listings.values() for path in listing.paths])
    samples = sum(len(listing.paths) for listing in listings.values())
    report: dict[str, list[str]] = {}
    splits: dict[str, Split] = {}
    for split, listing in listings.items():
        most = dataset.max_unreadable_fraction if first is None else 1.0
        lazy = FolderSplit(listing, root, size, most, where)
        splits[split] = in_memory(lazy) if samples * 3 * size * size <= IN_MEMORY_BYTES else lazy
        report[split] = lazy.unreadable
    return Data(classes, **splits, image_size=size, channels=3, unreadable=report)


def list_split(paths: list[str], name: str, expected: list[str] | None, source: str, where: str) -> tuple[list[str], Listing]:
    """The classes and images below `<name>/`; with `expected` the classes must be these."""
    shown = f"{source}/{name}"
    own = [path for path in paths if path.startswith(f"{name}/") and path.count("/") > name.count("/") + 1]
    folder = [path.removeprefix(f"{name}/").partition("/")[0] for path in own]
    classes = sorted(set(folder))
    if not classes:
        raise DataUnreadable(
            f"{shown} holds no label folder with files", hint=f"put images at {shown}/<label>/<file>, or set dataset.splits", field=where
        )
    if expected is not None and classes != expected:
        strange = sorted(set(classes) ^ set(expected))[0]
        side = "is a label that train does not have" if strange in classes else "is missing: train has this label"
        raise DataUnreadable(
            f"the labels differ between splits: {shown}/{strange} {side}", hint="give every split the same label folders", field=where
        )
    found = [(path, classes.index(label)) for path, label in zip(own, folder, strict=True) if Path(path).suffix.lower() in SUFFIXES]
    for index, label in enumerate(classes):
        if not any(number == index for _, number in found):
            raise DataUnreadable(f"{shown}/{label} holds no image", hint=f"known endings: {', '.join(sorted(SUFFIXES))}", field=where)
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


def own_size(files: list[Path]) -> int:
    """The side of the images where the first ones are square and of one size, else 224."""
    from PIL import Image, UnidentifiedImageError

    sizes = set()
    for path in files[:: max(1, len(files) // SIZES_READ)]:
        try:
            with Image.open(path) as image:
                sizes.add(image.size)
        except (UnidentifiedImageError, OSError):
            continue
        if len(sizes) > 1:
            return DEFAULT_SIZE
    width, height = next(iter(sizes), (0, 1))
    return width if width == height else DEFAULT_SIZE


def decode(path: Path, size: int) -> torch.Tensor | None:
    """An image file as RGB (3, size, size), uint8: shorter side resized, centre cropped. None when it can't be read."""
    import numpy
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
            return torch.from_numpy(numpy.array(fitted)).permute(2, 0, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises for damaged files
        return None


@dataclass
class FolderSplit:
    """A split that is decoded when it is asked for."""

    listing: Listing
    root: Path
    size: int
    most_unreadable: float
    where: str
    unreadable: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.labels = torch.tensor(self.listing.labels)
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode these samples; raises DataUnreadable when more than the allowed share of the split was unreadable so far."""
        paths = [self.root / self.listing.paths[index] for index in indices.tolist()]
        decoded = list(self.pool.map(decode, paths, [self.size] * len(paths)))
        for path, image in zip(paths, decoded, strict=True):
            if image is None and str(path) not in self.unreadable:
                self.unreadable.append(str(path))
        if len(self.unreadable) > self.most_unreadable * len(self):
            raise DataUnreadable(
                f"{len(self.unreadable)} of {len(self)} images of split {self.listing.name} can't be read, "
                f"more than {self.most_unreadable:.2%}; the first is {self.unreadable[0]}",
                hint="repair or remove them, or raise dataset.maxUnreadableFraction",
                field=self.where,
            )
        found = [position for position, image in enumerate(decoded) if image is not None]
        empty = torch.zeros(0, 3, self.size, self.size, dtype=torch.uint8)
        return torch.stack([decoded[i] for i in found]) if found else empty, torch.tensor(found, dtype=torch.int64)  # type: ignore[misc]


def in_memory(split: FolderSplit) -> MemorySplit:
    """Decode everything; what can't be read is left out."""
    pixels, kept = [], []
    for chunk in chunks(len(split)):
        images, found = split.read(chunk)
        pixels.append(images)
        kept.append(chunk[found])
    chosen = torch.cat(kept)
    return MemorySplit(torch.cat(pixels), split.labels[chosen])


def chunks(count: int, size: int = 512) -> Iterator[torch.Tensor]:
    """Indices 0 .. count - 1 in pieces."""
    yield from torch.arange(count).split(size)
