"""Tables of labelled texts: what parquet, csv and json have in common once their rows are read.

Which file belongs to which split is told by its name, as on the hub of Hugging Face: the split's name stands in the file's or a
folder's name between anything but letters (train.csv, data/test-00000-of-00002.parquet, dev/part.json). Where no name tells,
everything is train. Rows that can't be used are counted, named by file and row, and skipped, up to `maxUnreadableFraction` of
their split. Texts stay in arrow's memory, which holds no Python object a row.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import torch

from kompress_api.errors import DataUnreadable, InvalidManifest, LabelMismatch
from kompress_api.places import Dataset
from kompress_jobs.data import HELD_OUT, Data, Split, cut
from kompress_jobs.data_place import open_place

ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Names that mean the same, as on the hub."""
COLUMNS_TOLD = 30


@dataclass(frozen=True)
class Table:
    """The rows of one file, the sample's column and the label's."""

    inputs: pyarrow.ChunkedArray
    labels: pyarrow.ChunkedArray
    rows: list[int] | None = None
    """Number of each row in the file, from 1; None: one after the other."""
    damaged: tuple[int, ...] = ()
    """Rows that could not be read at all."""
    names: tuple[str, ...] = ()
    """Of labels that are numbers: what they mean, where the file says so."""


Read = Callable[[Path, str, str], Table]
"""(file, input column, label column) -> its rows; raises `MissingColumn`, and ValueError, OSError for a damaged file."""


class MissingColumn(Exception):
    """`name` is not among `columns`."""

    def __init__(self, name: str, columns: Iterable[str]) -> None:
        super().__init__(name)
        self.name, self.columns = name, list(columns)


@dataclass
class Rows:
    """The usable rows of one split."""

    name: str
    texts: pyarrow.ChunkedArray
    labels: list[str]
    places: list[str]
    """file:row of each."""
    unusable: list[str]
    """file:row of the others, with the reason."""

    def pick(self, chosen: list[int]) -> "Rows":
        """Some of them."""
        return Rows(
            self.name,
            self.texts.take(pyarrow.array(chosen, pyarrow.int64())),
            [self.labels[index] for index in chosen],
            [self.places[index] for index in chosen],
            self.unusable,
        )


@dataclass
class TextSplit:
    """A split whose texts lie in arrow's memory."""

    texts: pyarrow.ChunkedArray
    labels: torch.Tensor
    names: list[str]
    """file:row of each."""

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: torch.Tensor) -> tuple[list[str], torch.Tensor]:
        """These texts; all can be read."""
        return self.texts.take(pyarrow.array(indices.numpy())).to_pylist(), torch.arange(len(indices))


def load(dataset: Dataset, scratch: Path, suffixes: tuple[str, ...], read: Read, *, field: str, first: int | None) -> Data:
    """The data set; with `first` about that many samples of each split (the label column is read whole: it says which labels there are).

    Raises InvalidManifest for columns, DataUnreadable with file and row, LabelMismatch for labels that train does not have.
    """
    columns = column_of(dataset.input_column, "inputColumn", field), column_of(dataset.label_column, "labelColumn", field)
    place = open_place(dataset, scratch, field=field)
    listed = files_of(dataset, place.paths, suffixes, field=field)
    root = place.bring([path for paths in listed.values() for path in paths])
    parts: dict[str, Rows] = {}
    named: tuple[str, ...] = ()
    for split, paths in listed.items():
        if paths:
            parts[split], names = collect(split, root, paths, columns, read, field=field)
            named = named or names
            refuse_unusable(parts[split], dataset.max_unreadable_fraction, field=field)
    labels = list(named) or ordered(set(parts["train"].labels))
    known = set(parts["train"].labels)
    for rows in parts.values():
        require_known(rows, known, field=field)
    numbers = {label: index for index, label in enumerate(labels)}
    for split in ("validation", "test"):
        if split not in parts:
            train = parts["train"]
            kept, held = cut(train.texts.to_pylist(), [numbers[label] for label in train.labels], HELD_OUT)
            parts["train"], parts[split] = train.pick(kept), dataclasses.replace(train.pick(held), unusable=[])
    if first is not None:
        parts = {split: thinned(rows, first) for split, rows in parts.items()}
    splits: dict[str, Split] = {
        split: TextSplit(rows.texts, torch.tensor([numbers[label] for label in rows.labels]), rows.places) for split, rows in parts.items()
    }
    return Data(labels, **splits, unreadable={split: rows.unusable for split, rows in parts.items()})


def files_of(dataset: Dataset, paths: list[str], suffixes: tuple[str, ...], *, field: str) -> dict[str, list[str]]:
    """The files of each split; a file that the source itself names is train, whatever it is called. Raises DataUnreadable without train."""
    files = [path for path in paths if path.lower().endswith(suffixes)]
    if not files:
        raise DataUnreadable(
            f"{dataset.source} holds no file that ends in {' or '.join(suffixes)}",
            hint="check dataset.format and the address",
            field=f"{field}.source",
        )
    if dataset.source.endswith(suffixes):
        return {"train": files, "validation": [], "test": []}
    listed = by_split(files, {split: getattr(dataset.splits, split) for split in ALIASES})
    if not listed["train"]:
        raise DataUnreadable(
            f"{dataset.source} has files for {', '.join(split for split in listed if listed[split])}, and none for train",
            hint="put the split's name into a file's or folder's name, or set dataset.splits.train",
            field=f"{field}.splits.train",
        )
    return listed


def column_of(name: str | None, setting: str, field: str) -> str:
    """Raises InvalidManifest where the manifest does not say."""
    if name is None:
        raise InvalidManifest(
            f"{setting} is needed for tables", hint="name the column that holds it, for example text or label", field=f"{field}.{setting}"
        )
    return name


def by_split(files: list[str], names: dict[str, str]) -> dict[str, list[str]]:
    """The files of each split. The file's own name counts before its folders', the nearest first; files of no split are left out."""
    found: dict[str, list[str]] = {split: [] for split in names}
    patterns = {
        split: re.compile(rf"(?<![a-z])(?:{'|'.join(re.escape(word.lower()) for word in ALIASES.get(name, (name,)))})(?![a-z])")
        for split, name in names.items()
    }
    for path in files:
        parts = path.lower().split("/")
        for part in [parts[-1].rpartition(".")[0], *reversed(parts[:-1])]:
            split = next((split for split, pattern in patterns.items() if pattern.search(part)), None)
            if split is not None:
                found[split].append(path)
                break
    return found if any(found.values()) else found | {"train": files}


def collect(split: str, root: Path, paths: list[str], columns: tuple[str, str], read: Read, *, field: str) -> tuple[Rows, tuple[str, ...]]:
    """The rows of a split's files, and what its labels are called where they are numbers with names."""
    texts: list[pyarrow.Array] = []
    labels: list[str] = []
    places: list[str] = []
    unusable: list[str] = []
    named: tuple[str, ...] = ()
    for path in paths:
        try:
            table = read(root / path, *columns)
        except MissingColumn as error:
            raise missing(error, path, columns, field=field) from None
        except (pyarrow.ArrowException, ValueError, OSError) as error:
            raise DataUnreadable(f"{path} can't be read: {error}", hint="make the file again", field=f"{field}.source") from error
        named = named or table.names
        unusable += [f"{path}:{row} (damaged)" for row in table.damaged]
        inputs, kept = texts_of(table.inputs, path, columns[0], field=field), []
        for index, (text, label) in enumerate(zip(inputs.to_pylist(), labels_of(table, path, columns[1], field=field), strict=True)):
            where = f"{path}:{table.rows[index] if table.rows else index + 1}"
            if label is None:
                unusable.append(f"{where} (no label)")
            elif text is None or not text.strip():
                unusable.append(f"{where} (no text)")
            else:
                kept.append(index)
                labels.append(label)
                places.append(where)
        texts += inputs.take(pyarrow.array(kept, pyarrow.int64())).chunks
    return Rows(split, pyarrow.chunked_array(texts, pyarrow.large_string()), labels, places, unusable), named


def texts_of(column: pyarrow.ChunkedArray, path: str, name: str, *, field: str) -> pyarrow.ChunkedArray:
    """The samples of a column. Columns of images or sounds (structs of bytes and path) would be told apart here, by their type."""
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pyarrow.types.is_null(kind) or pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        return column.cast(pyarrow.large_string())
    raise DataUnreadable(f"column {name} of {path} holds {kind}, not text", hint="name a column of text", field=f"{field}.inputColumn")


def labels_of(table: Table, path: str, name: str, *, field: str) -> list[str | None]:
    """Labels as text; None where there is none, or where a number has no name among those that the file gives."""
    kind = table.labels.type
    if pyarrow.types.is_nested(kind) or pyarrow.types.is_temporal(kind) or pyarrow.types.is_binary(kind):
        raise DataUnreadable(
            f"column {name} of {path} holds {kind}, not labels", hint="name a column of text or whole numbers", field=f"{field}.labelColumn"
        )
    return [label_of(value, table.names) for value in table.labels.to_pylist()]


def label_of(value: object, names: tuple[str, ...]) -> str | None:
    """One label; 3.0 is 3, which is what a column of whole numbers with gaps becomes elsewhere. None: unusable."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if value is None or isinstance(value, float) or (isinstance(value, str) and not value.strip()):
        return None
    if names and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return str(value).strip()


def ordered(labels: set[str]) -> list[str]:
    """Whole numbers by value, else by name."""
    if all(re.fullmatch(r"-?\d+", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def refuse_unusable(rows: Rows, most: float, *, field: str) -> None:
    """Raise DataUnreadable for a split without rows, or with more unusable ones than allowed."""
    count = len(rows.labels) + len(rows.unusable)
    if not rows.labels or len(rows.unusable) > most * count:
        first = f"; the first is {rows.unusable[0]}" if rows.unusable else ""
        raise DataUnreadable(
            f"{len(rows.unusable)} of {count} rows of split {rows.name} can't be used, more than {most:.2%}{first}",
            hint="repair or remove them, or raise dataset.maxUnreadableFraction",
            field=f"{field}.source",
        )


def require_known(rows: Rows, known: set[str], *, field: str) -> None:
    """Raise LabelMismatch for a label that train does not have."""
    for label, where in zip(rows.labels, rows.places, strict=True):
        if label not in known:
            raise LabelMismatch(
                f"{where}: label {label!r} of split {rows.name} is none of the {len(known)} that train has",
                hint="give train samples of every label, or take the row out",
                field=f"{field}.labelColumn",
            )


def missing(error: MissingColumn, path: str, columns: tuple[str, str], *, field: str) -> InvalidManifest:
    """The error for a column that a file does not have."""
    near = difflib.get_close_matches(error.name, error.columns, n=1)
    return InvalidManifest(
        f"{path} has no column {error.name} (it has {', '.join(error.columns[:COLUMNS_TOLD])})",
        hint=f"did you mean {near[0]}?" if near else "name one of them",
        field=f"{field}.{'inputColumn' if error.name == columns[0] else 'labelColumn'}",
    )


def thinned(rows: Rows, count: int) -> Rows:
    """About `count` rows, at least one of each label."""
    each = max(1, count // len(set(rows.labels)))
    seen: dict[str, int] = {}
    chosen = []
    for index, label in enumerate(rows.labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= each:
            chosen.append(index)
    return rows.pick(chosen)
