"""python://package.module:factory: the user's own data, from code in their image.

The factory gets the manifest's `arguments` and returns {"train": (samples, labels), ...}: of each split (under the names of
`dataset.splits`; a missing one is cut from train) two sequences of one length, of which the samples may be read when they are asked
for. A sample is a text; an image (uint8 array (height, width) or (height, width, 3), uint8 tensor (channels, height, width), or of
Pillow); a sound (float array of 16,000 samples a second, or a pair of one and its rate); the path of a file, or its bytes. A label is
a text or a whole number; {"labels": [...]} beside the splits says what the numbers mean.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy
import pyarrow
import torch

from kompress_api.errors import DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs import factories
from kompress_jobs.samples import cells, sound, tables
from kompress_jobs.samples.encoded import File, Openable
from kompress_jobs.samples.sound import SOUND
from kompress_jobs.samples.splits import Data

TRANSCRIPTS = True
"""A label may be what is said."""


@dataclass(frozen=True)
class Given(Openable):
    """The factory's samples of a split, as files."""

    samples: Any
    medium: cells.Medium
    chosen: list[int]

    def __len__(self) -> int:
        return len(self.chosen)

    def open(self, index: int) -> BinaryIO:
        """One sample, read now."""
        return io.BytesIO(content_of(self.samples[self.chosen[index]]))

    @property
    def names(self) -> list[str]:
        """Positions: reading every sample for its content would be dear."""
        return [str(row) for row in self.chosen]

    def pick(self, rows: list[int]) -> Self:
        """Some of them."""
        return type(self)(self.samples, self.medium, [self.chosen[row] for row in rows])


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None, transcripts: bool = False) -> Data:
    """Call the factory. Raises FactoryNotAllowed, InvalidManifest (arguments), and DataUnreadable where it returns something else."""
    address = dataset.source.removeprefix("python://")
    factory = factories.resolve(address, field=f"{field}.source")
    given = factories.call(factory, dataset.arguments, {}, field=f"{field}.arguments")
    names = {split: getattr(dataset.splits, split) for split in ("train", "validation", "test")}
    if not isinstance(given, Mapping) or names["train"] not in given:
        shown = f"the keys {', '.join(map(str, given))}" if isinstance(given, Mapping) else f"a {type(given).__name__}"
        raise DataUnreadable(
            f"{dataset.source} returned {shown}, not {{{names['train']!r}: (samples, labels), ...}}",
            hint="return a pair of sequences for each split",
            field=f"{field}.source",
        )
    named = tuple(str(name) for name in given.get("labels", ()))
    parts: dict[str, tables.Rows] = {}
    for split, name in names.items():
        if name in given:
            parts[split] = rows_of(name, given[name], named, dataset, field=field)
            tables.refuse_unusable(parts[split], dataset.max_unreadable_fraction, field=field)
    return tables.assembled(dataset, parts, named, files_of, field=field, first=first, transcripts=transcripts)


def rows_of(name: str, given: Any, named: tuple[str, ...], dataset: Dataset, *, field: str) -> tables.Rows:
    """The usable rows of a split."""
    try:
        samples, given_labels = given
        labels = list(given_labels)
        count = len(samples)
    except (TypeError, ValueError) as error:
        raise DataUnreadable(
            f"split {name} of {dataset.source} is no pair of samples and labels: {error}",
            hint="return two sequences of one length",
            field=f"{field}.source",
        ) from error
    if count != len(labels):
        raise DataUnreadable(
            f"split {name} of {dataset.source} has {count} samples and {len(labels)} labels",
            hint="return one label for each sample",
            field=f"{field}.source",
        )
    several = dataset.multi_label
    told = [all_of(label, named) if several else one_of(label, named) for label in labels]
    kept = [index for index, label in enumerate(told) if label is not None]
    unusable = [f"{name}[{index}] (no label, or one out of range)" for index, label in enumerate(told) if label is None]
    medium = medium_of(samples[0], dataset.source, field=field) if count else "text"
    found: tables.Picked
    if medium == "text":
        texts = [samples[index] for index in kept]
        found = cells.Column(pyarrow.chunked_array([pyarrow.array(texts, pyarrow.large_string())]), "text")
    else:
        found = Given(samples, medium, kept)
    return tables.Rows(name, found, [row for row in told if row is not None], [f"{name}[{index}]" for index in kept], unusable)


def one_of(label: Any, named: tuple[str, ...]) -> tuple[str, ...] | None:
    """The label of a sample that has one."""
    found = cells.label_of(plain(label), named)
    return None if found is None else (found,)


def all_of(label: Any, named: tuple[str, ...]) -> tuple[str, ...] | None:
    """The labels of a sample that may have several."""
    given = plain(label)
    return cells.all_of(given if isinstance(given, list) else [given], named)


def plain(label: Any) -> Any:
    """Without numpy's and torch's types."""
    if isinstance(label, numpy.ndarray | numpy.generic | torch.Tensor):
        return label.tolist()
    return list(label) if isinstance(label, Iterable) and not isinstance(label, str) else label


def files_of(rows: tables.Rows) -> Sequence[File]:
    """The samples are files already."""
    assert isinstance(rows.samples, Given)
    return rows.samples


def medium_of(sample: Any, shown: str, *, field: str) -> cells.Medium:
    """What a split holds, by its first sample."""
    if isinstance(sample, str):
        return "text"
    if isinstance(sample, Path):
        return "clip" if sample.suffix.lower() in SOUND.suffixes else "image"
    if isinstance(sample, bytes):
        return cells.medium_of(sample)
    if isinstance(sample, tuple) or (isinstance(sample, numpy.ndarray | torch.Tensor) and sample.ndim == 1):
        return "clip"
    if is_image(sample):
        return "image"
    raise DataUnreadable(
        f"the samples of {shown} are {type(sample).__name__}s{getattr(sample, 'shape', '')}: neither text, image nor sound",
        hint="return texts, uint8 arrays (height, width, 3), float waves, paths or bytes",
        field=f"{field}.source",
    )


def is_image(sample: Any) -> bool:
    """Whether Pillow can make one of it."""
    from PIL import Image

    if isinstance(sample, torch.Tensor):
        return sample.dtype == torch.uint8 and sample.ndim == 3
    return isinstance(sample, Image.Image) or (isinstance(sample, numpy.ndarray) and sample.dtype == numpy.uint8 and sample.ndim in (2, 3))


def content_of(sample: Any) -> bytes:
    """A sample as the bytes of a file."""
    if isinstance(sample, bytes):
        return sample
    if isinstance(sample, Path):
        return sample.read_bytes()
    if isinstance(sample, tuple):
        return wave_file(*sample)
    if not is_image(sample):
        return wave_file(sample, sound.RATE)
    from PIL import Image

    if isinstance(sample, torch.Tensor):
        sample = sample.permute(1, 2, 0).squeeze(2).numpy()
    image = sample if isinstance(sample, Image.Image) else Image.fromarray(sample.squeeze(2) if sample.shape[2:] == (1,) else sample)
    file = io.BytesIO()
    image.convert("RGB").save(file, "BMP")
    return file.getvalue()


def wave_file(wave: Any, rate: int) -> bytes:
    """A wave as a file; two axes are (samples, channels)."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, numpy.asarray(wave, dtype="float32"), int(rate), format="WAV", subtype="FLOAT")
    return file.getvalue()
