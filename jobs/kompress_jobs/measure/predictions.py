"""What a model said of every sample of a split, so that two models can be compared sample by sample (`paired.py`).

One parquet file a model, below `measurements/` in the artifact of its stage: some bytes a sample, typed, read by anybody's
tools, and no pickle. Positions are those in the split; the stage key holds the data's fingerprint, so the same position is the
same sample in every stage of a job.
"""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pyarrow
from pyarrow import parquet

from kompress_jobs.storage.artifacts import MEASUREMENTS

if TYPE_CHECKING:
    from kompress_jobs.samples.splits import Split

Array = numpy.ndarray[Any, Any]
OWN, SOURCE, BASELINE = "test", "source", "baseline"
"""Of the stage's own model, of spec.model where the stage starts from it, of the baseline that an export lowered beside its own."""
ABOUT = b"kompress"
"""Key of the file's metadata: JSON."""
TRUE_LABELS, SAID_LABELS = "trueLabels", "saidLabels"
"""Columns of lists, where a sample may carry several labels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Spoken:
    """What a recogniser heard in each sample, and what it got wrong; arrays are (samples,), int64."""

    true: list[str]
    """Transcripts."""
    said: list[str]
    wrong_words: Array
    words: Array
    """That the transcripts have."""
    wrong_characters: Array
    characters: Array

    def at(self, rows: Array) -> "Spoken":
        """Some of them."""
        counts = {name: getattr(self, name)[rows] for name in COUNTS}
        return Spoken([self.true[row] for row in rows.tolist()], [self.said[row] for row in rows.tolist()], **counts)


COUNTS = ("wrong_words", "words", "wrong_characters", "characters")


@dataclasses.dataclass(frozen=True, eq=False)
class Marked:
    """Which labels each sample carries, where it may carry several, and which a model gives it; arrays are (samples, labels), bool."""

    true: Array
    said: Array

    def at(self, rows: Array) -> "Marked":
        """Some of them."""
        return Marked(self.true[rows], self.said[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Of a classifier or a recogniser; all arrays are (samples,), sorted by position."""

    labels: list[str]
    """Names of the classes that targets and predictions count."""
    positions: Array
    """In the split, int64; samples that can't be read are missing."""
    names: list[str]
    """What the samples are called (a file, a row of a table); empty where the data has no names."""
    targets: Array
    """int64; of a recogniser, or with several labels a sample, 0."""
    predicted: Array
    """int64; of a recogniser 0 where every word is right, with several labels a sample where every label is, else 1."""
    confidence: Array
    """Probability of what was predicted, float64; of a recogniser the geometric mean over frames, of several labels over labels."""
    losses: Array
    """Cross-entropy, natural logarithm, float64; of a recogniser CTC's loss, of several labels the mean of binary ones."""
    top5: Array | None = None
    """Whether the label is among the five best, bool; None with five classes or fewer."""
    spoken: Spoken | None = None
    """Of a recogniser."""
    marked: Marked | None = None
    """Where a sample may carry several labels."""
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What else is known of them, JSON."""

    @property
    def right(self) -> Array:
        """(samples,), bool."""
        return self.predicted == self.targets

    def __len__(self) -> int:
        return len(self.positions)

    def named(self, split: "Split", **about: Any) -> "Predictions":
        """With the names that the split has for its samples, if it has any, and more about them."""
        from kompress_jobs.samples.splits import names_of  # torch, which a report does not need

        names = names_of(split)
        found = [names[position] for position in self.positions.tolist()] if names else []
        return dataclasses.replace(self, names=found, about={**self.about, **about})

    def at(self, rows: Array) -> "Predictions":
        """Some of them."""
        names = [self.names[row] for row in rows.tolist()] if self.names else []
        top5 = None if self.top5 is None else self.top5[rows]
        arrays = {name: getattr(self, name)[rows] for name in ("positions", "targets", "predicted", "confidence", "losses")}
        spoken = None if self.spoken is None else self.spoken.at(rows)
        marked = None if self.marked is None else self.marked.at(rows)
        return dataclasses.replace(self, names=names, top5=top5, spoken=spoken, marked=marked, **arrays)


def encode(found: Predictions) -> bytes:
    """As a parquet file."""
    columns: dict[str, Any] = {
        "position": pyarrow.array(found.positions, pyarrow.int64()),
        "target": pyarrow.array(found.targets, pyarrow.int32()),
        "predicted": pyarrow.array(found.predicted, pyarrow.int32()),
        "confidence": pyarrow.array(found.confidence, pyarrow.float32()),
        "loss": pyarrow.array(found.losses, pyarrow.float64()),
    }
    if found.names:
        columns["name"] = pyarrow.array(found.names, pyarrow.string())
    if found.top5 is not None:
        columns["top5"] = pyarrow.array(found.top5, pyarrow.bool_())
    if found.spoken is not None:
        columns |= {name: pyarrow.array(getattr(found.spoken, name), pyarrow.string()) for name in ("true", "said")}
        columns |= {name: pyarrow.array(getattr(found.spoken, name), pyarrow.int64()) for name in COUNTS}
    if found.marked is not None:
        sides = {TRUE_LABELS: found.marked.true, SAID_LABELS: found.marked.said}
        columns |= {name: pyarrow.array([row.nonzero()[0] for row in rows], pyarrow.list_(pyarrow.int32())) for name, rows in sides.items()}
    about = json.dumps({"labels": found.labels, **found.about}, sort_keys=True).encode()
    target = io.BytesIO()
    parquet.write_table(pyarrow.table(columns, metadata={ABOUT: about}), target, compression="zstd")
    return target.getvalue()


def decode(content: bytes) -> Predictions:
    """Read a file of `encode` back; raises ValueError for any other."""
    try:
        table = parquet.read_table(pyarrow.BufferReader(content))
        about = json.loads((table.schema.metadata or {})[ABOUT])
        columns = {name: table[name] for name in table.column_names}
        labels = about.pop("labels")
        return Predictions(
            labels=labels,
            positions=columns["position"].to_numpy(),
            names=columns["name"].to_pylist() if "name" in columns else [],
            targets=columns["target"].to_numpy().astype(numpy.int64),
            predicted=columns["predicted"].to_numpy().astype(numpy.int64),
            confidence=columns["confidence"].to_numpy().astype(numpy.float64),
            losses=columns["loss"].to_numpy(),
            top5=columns["top5"].to_numpy() if "top5" in columns else None,
            spoken=Spoken(columns["true"].to_pylist(), columns["said"].to_pylist(), **{name: columns[name].to_numpy() for name in COUNTS})
            if "said" in columns
            else None,
            marked=Marked(*(marks(columns[name].to_pylist(), len(labels)) for name in (TRUE_LABELS, SAID_LABELS)))
            if SAID_LABELS in columns
            else None,
            about=about,
        )
    except (pyarrow.ArrowException, KeyError) as error:
        raise ValueError(f"no file of predictions: {error}") from error


def marks(rows: Sequence[Sequence[int]], labels: int) -> Array:
    """(rows, labels), bool: where each row has its labels."""
    found = numpy.zeros((len(rows), labels), dtype=bool)
    for row, named in zip(found, rows, strict=True):
        row[named] = True
    return found


def write(folder: Path, found: Mapping[str, Predictions | None]) -> None:
    """Put them beside a stage's model; None: nobody asked that side."""
    for name, predictions in found.items():
        if predictions is not None:
            path = folder / file_of(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(predictions))


def file_of(name: str) -> str:
    """Path below the artifact's folder."""
    return f"{MEASUREMENTS}/{name}.parquet"


def of_format(name: str, form: str) -> str:
    """The name of predictions of an export's second, third, ... format."""
    return f"{name}@{form}"


def together(found: Sequence[Predictions]) -> list[Predictions]:
    """The samples that all of them saw, in one order."""
    common = found[0].positions
    for other in found[1:]:
        common = numpy.intersect1d(common, other.positions, assume_unique=True)
    return [entry.at(numpy.searchsorted(entry.positions, common)) for entry in found]
