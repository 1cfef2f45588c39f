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
from kompress_jobs.data import HELD_OUT, Data, Split, TensorSplit, cut
from kompress_jobs.data_place import local_folder

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
    folder: Path
    files: list[Path]
    labels: list[int]


def load(dataset: Dataset, scratch: Path, *, field: str) -> Data:
    """Read the folder. Raises DataUnreadable with the file or folder at fault."""
    root = local_folder(dataset, scratch)
    where = f"{field}.source"
    classes, train = list_split(root, dataset.splits.train, None, dataset, where)
    listings = {"train": train}
    for split in ("validation", "test"):
        name = getattr(dataset.splits, split)
        if (root / name).is_dir():
            listings[split] = list_split(root, name, classes, dataset, where)[1]
        else:
            listings["train"], listings[split] = hold_out(listings["train"], name)
    size = dataset.image_size or own_size([path for listing in listings.values() for path in listing.files])
    samples = sum(len(listing.files) for listing in listings.values())
    report: dict[str, list[str]] = {}
    splits: dict[str, Split] = {}
    for split, listing in listings.items():
        lazy = FolderSplit(listing, size, dataset.max_unreadable_fraction, where)
        splits[split] = in_memory(lazy) if samples * 3 * size * size <= IN_MEMORY_BYTES else lazy
        report[split] = lazy.unreadable
    return Data(classes, size, 3, splits["train"], splits["validation"], splits["test"], report)


def list_split(root: Path, name: str, expected: list[str] | None, dataset: Dataset, where: str) -> tuple[list[str], Listing]:
    """The classes and files below `<root>/<name>`; with `expected` the classes must be these."""
    folder = root / name
    shown = f"{dataset.source}/{name}"
    if not folder.is_dir():
        raise DataUnreadable(f"{shown} does not exist", hint=f"put images at {shown}/<label>/<file>, or set dataset.splits", field=where)
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DataUnreadable(f"{shown} is empty: no label folders", hint=f"put images at {shown}/<label>/<file>", field=where)
    if expected is not None and classes != expected:
        strange = sorted(set(classes) ^ set(expected))[0]
        side = (
            f"{shown}/{strange} is a label that train does not have"
            if strange in classes
            else f"{shown} lacks the label {strange} of train"
        )
        raise DataUnreadable(f"the labels differ between splits: {side}", hint="give every split the same label folders", field=where)
    files, labels = [], []
    for label, entry in enumerate(classes):
        found = sorted(path for path in (folder / entry).rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
        if not found:
            raise DataUnreadable(f"{shown}/{entry} holds no image", hint=f"known endings: {', '.join(sorted(SUFFIXES))}", field=where)
        files += found
        labels += [label] * len(found)
    return classes, Listing(name, folder, files, labels)


def hold_out(train: Listing, name: str) -> tuple[Listing, Listing]:
    """Cut a missing split from train by hash of the path within it."""
    kept, held = cut([path.relative_to(train.folder).as_posix() for path in train.files], train.labels, HELD_OUT)

    def part(name: str, chosen: list[int]) -> Listing:
        return Listing(name, train.folder, [train.files[i] for i in chosen], [train.labels[i] for i in chosen])

    return part(train.name, kept), part(name, held)


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
    size: int
    most_unreadable: float
    where: str
    unreadable: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.labels = torch.tensor(self.listing.labels)
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode these samples; raises DataUnreadable when more than the allowed share of the split was unreadable so far."""
        paths = [self.listing.files[index] for index in indices.tolist()]
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


def in_memory(split: FolderSplit) -> TensorSplit:
    """Decode everything; what can't be read is left out."""
    pixels, kept = [], []
    for chunk in chunks(len(split)):
        images, found = split.images(chunk)
        pixels.append(images)
        kept.append(chunk[found])
    chosen = torch.cat(kept)
    return TensorSplit(torch.cat(pixels), split.labels[chosen])


def chunks(count: int, size: int = 512) -> Iterator[torch.Tensor]:
    """Indices 0 .. count - 1 in pieces."""
    yield from torch.arange(count).split(size)
