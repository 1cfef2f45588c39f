"""Tables of labelled samples: what parquet, csv, json and arrow have in common once their rows are read.

Which file belongs to which split is told by its name, as on the hub of Hugging Face: the split's name stands in the file's or a
folder's name between anything but letters (train.csv, data/test-00000-of-00002.parquet, dev/part.json). Where no name tells,
everything is train. Rows that can't be used are counted, named by file and row, and skipped, up to `maxUnreadableFraction` of
their split. A sample is a text, or a file (image, sound) in the cell or at the path that the cell names (`cells.py`). Cells stay in
arrow's memory, which holds no Python object a row.
"""

import dataclasses
import difflib
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import pyarrow
import torch

from kompress_api.errors import DataUnreadable, InvalidManifest, LabelMismatch
from kompress_api.places import Dataset
from kompress_jobs.samples import cells, images, sound
from kompress_jobs.samples.data_place import Place, PlacedFile, open_place
from kompress_jobs.samples.encoded import THREADS, Encoded, File, Files
from kompress_jobs.samples.row_groups import RowGroups
from kompress_jobs.samples.splits import HELD_OUT, Data, Split, cut
from kompress_jobs.samples.transcripts import alphabet_of, encode

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

    inputs: pyarrow.ChunkedArray | RowGroups
    labels: pyarrow.ChunkedArray
    rows: list[int] | None = None
    """Number of each row in the file, from 1; None: one after the other."""
    damaged: tuple[int, ...] = ()
    """Rows that could not be read at all."""
    names: tuple[str, ...] = ()
    """Of labels that are numbers: what they mean, where the file says so."""


Read = Callable[[PlacedFile, str, str], Table]
"""(file, input column, label column) -> its rows; raises `MissingColumn`, and ValueError, OSError for a damaged file."""


class MissingColumn(Exception):
    """`name` is not among `columns`."""

    def __init__(self, name: str, columns: Iterable[str]) -> None:
        super().__init__(name)
        self.name, self.columns = name, list(columns)


def require_columns(names: list[str], *wanted: str) -> None:
    """Raise MissingColumn for one that is not there, ValueError for one that is there twice."""
    for name in wanted:
        if name not in names:
            raise MissingColumn(name, names)
        if names.count(name) > 1:
            raise ValueError(f"it has {names.count(name)} columns {name}")


class Picked(Protocol):
    """Samples of rows, of which some can be taken."""

    @property
    def medium(self) -> cells.Medium: ...

    @property
    def names(self) -> list[str]:
        """What they are told apart by when a split is cut: equal ones fall on the same side."""

    def pick(self, rows: list[int]) -> Self: ...


@dataclass
class Rows:
    """The usable rows of one split."""

    name: str
    samples: Picked
    labels: list[tuple[str, ...]]
    """One of each, or several where the set is multi-label."""
    places: list[str]
    """file:row of each."""
    unusable: list[str]
    """file:row of the others, with the reason."""

    def pick(self, chosen: list[int]) -> "Rows":
        """Some of them."""
        return Rows(
            self.name,
            self.samples.pick(chosen),
            [self.labels[index] for index in chosen],
            [self.places[index] for index in chosen],
            self.unusable,
        )


FilesOf = Callable[[Rows], Sequence[File]]
"""The files of rows whose samples are files."""


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


def load(
    dataset: Dataset,
    scratch: Path,
    suffixes: tuple[str, ...],
    read: Read,
    *,
    at_once: bool = False,
    field: str,
    first: int | None,
    transcripts: bool = False,
) -> Data:
    """The data set. With `at_once` files that are far away are read several at a time; with `first` it has about that many samples of each
    split (the label column is read whole: it says which labels there are).

    Raises InvalidManifest for columns, DataUnreadable with file and row, LabelMismatch for labels that train does not have.
    """
    columns = column_of(dataset.input_column, "inputColumn", field), column_of(dataset.label_column, "labelColumn", field)
    place = open_place(dataset, scratch, field=field)
    listed = files_by_split(dataset, place.paths, suffixes, field=field)
    reading = Reading(dataset, place, columns, read, at_once, field)
    parts: dict[str, Rows] = {}
    named: tuple[str, ...] = ()
    for split, paths in listed.items():
        if paths:
            parts[split], names = collect(split, paths, reading)
            named = named or names
            refuse_unusable(parts[split], dataset.max_unreadable_fraction, field=field)

    def files_of_rows(rows: Rows) -> Sequence[File]:
        return contents(rows, place)

    return assembled(dataset, parts, named, files_of_rows, near=place.near, field=field, first=first, transcripts=transcripts)


def assembled(
    dataset: Dataset,
    parts: dict[str, Rows],
    named: tuple[str, ...],
    files_of: FilesOf,
    *,
    near: bool = True,
    field: str,
    first: int | None,
    transcripts: bool = False,
) -> Data:
    """The splits that there are, and those that are cut from train, with one label map. `near`: see `data_place.Place`.

    Raises LabelMismatch for labels that train does not have, DataUnreadable for files that can't be decoded.
    """
    known = {label for row in parts["train"].labels for label in row}
    for rows in parts.values():
        require_medium(rows, parts["train"].samples, field=field)
        if not transcripts:
            require_known(rows, known, field=field)
    for split in ("validation", "test"):
        if split not in parts:
            train = parts["train"]
            kept, held = cut(train.samples.names, [""] * len(train.labels) if transcripts else strata(train.labels), HELD_OUT)
            parts["train"], parts[split] = train.pick(kept), dataclasses.replace(train.pick(held), unusable=[])
    labels = alphabet_of(text for (text,) in parts["train"].labels) if transcripts else list(named) or ordered(known)
    whole = parts
    if first is not None:
        parts = {
            split: rows.pick(list(range(len(rows.labels)))[:first]) if transcripts else thinned(rows, first)
            for split, rows in parts.items()
        }
    unreadable = {split: rows.unusable for split, rows in parts.items()}
    targets = {
        split: encode([text for (text,) in rows.labels], labels)
        if transcripts
        else targets_of(rows.labels, labels, several=dataset.multi_label)
        for split, rows in parts.items()
    }
    if parts["train"].samples.medium == "text":
        texts: dict[str, Split] = {split: text_split(rows, targets[split]) for split, rows in parts.items()}
        return Data(labels, **texts, unreadable=unreadable)
    files = {split: Files(rows.name, files_of(rows), rows.places, targets[split]) for split, rows in parts.items()}
    medium, samples = (images.IMAGES, images) if parts["train"].samples.medium == "image" else (sound.SOUND, sound)
    everything = [file for rows in (whole if near else parts).values() for file in files_of(rows)]
    most = dataset.max_unreadable_fraction if first is None else 1.0
    found = samples.decoded(Encoded(medium, labels, files, everything, most, f"{field}.source"), dataset)
    for split, places in unreadable.items():
        found.unreadable[split].extend(places)  # a split that is decoded when it is asked for goes on adding to this list
    return found


def text_split(rows: Rows, targets: torch.Tensor) -> TextSplit:
    """Texts are cells of arrow, wherever they came from."""
    assert isinstance(rows.samples, cells.Column)
    return TextSplit(rows.samples.cells, targets, rows.places)


def contents(rows: Rows, place: Place) -> Sequence[File]:
    """The files of the rows: those that the cells name, or the cells themselves."""
    if isinstance(rows.samples, RowGroups):
        return rows.samples
    assert isinstance(rows.samples, cells.Column)
    return place.files(rows.samples.cells.to_pylist())


def strata(labels: list[tuple[str, ...]]) -> list[str]:
    """What each row counts as when a share of every label is cut: its rarest label."""
    counts = Counter(label for row in labels for label in row)
    return [min(row, key=lambda label: (counts[label], label), default="") for row in labels]


def targets_of(labels: list[tuple[str, ...]], known: list[str], *, several: bool) -> torch.Tensor:
    """(rows,) int64; of several labels a row (rows, labels) bool."""
    numbers = {label: index for index, label in enumerate(known)}
    if not several:
        return torch.tensor([numbers[row[0]] for row in labels])
    found = torch.zeros(len(labels), len(known), dtype=torch.bool)
    for index, row in enumerate(labels):
        found[index, [numbers[label] for label in row]] = True
    return found


def files_by_split(dataset: Dataset, paths: list[str], suffixes: tuple[str, ...], *, field: str) -> dict[str, list[str]]:
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


@dataclass(frozen=True)
class Reading:
    """What the rows of every file are read with."""

    dataset: Dataset
    place: Place
    columns: tuple[str, str]
    """Of the sample, of the label."""
    read: Read
    at_once: bool
    field: str


def collect(split: str, paths: list[str], reading: Reading) -> tuple[Rows, tuple[str, ...]]:
    """The rows of a split's files, and what its labels are called where they are numbers with names."""
    found: list[Any] = []  # of one kind, `require_same` sees to that
    kept: list[int] = []
    before = 0
    labels: list[tuple[str, ...]] = []
    places: list[str] = []
    unusable: list[str] = []
    named: tuple[str, ...] = ()
    first: cells.Column | RowGroups | None = None
    for path, table in zip(paths, tables_of(paths, reading), strict=True):
        named = named or table.names
        unusable += [f"{path}:{row} (damaged)" for row in table.damaged]
        column = table.inputs
        if not isinstance(column, RowGroups):
            column = cells.samples_of(column, path, reading.columns[0], field=reading.field)
        if not before:
            first = column
        elif len(table.labels):
            require_same(column, first, path, reading)
        told = cells.labels_of(
            table.labels, table.names, path, reading.columns[1], several=reading.dataset.multi_label, field=reading.field
        )
        if isinstance(column, cells.Column) and column.paths:
            column = dataclasses.replace(column, cells=placed(column.cells, path, reading.place))
        for index, (label, why) in enumerate(zip(told, missing_samples(column), strict=True)):
            where = f"{path}:{table.rows[index] if table.rows else index + 1}"
            if label is None:
                unusable.append(f"{where} (no label)")
            elif why:
                unusable.append(f"{where} ({why})")
            else:
                kept.append(before + index)
                labels.append(label)
                places.append(where)
        if len(table.labels):
            found.append(column)
        before += len(table.labels)
    assert first is not None
    return Rows(split, joined(first, found).pick(kept), labels, places, unusable), named


def tables_of(paths: list[str], reading: Reading) -> Iterator[Table]:
    """The tables of these files; those that are far away are brought several at a time."""
    if reading.place.near:
        yield from (opened(path, reading) for path in paths)
        return
    with ThreadPoolExecutor(THREADS, thread_name_prefix="tables") as pool:
        if reading.at_once:
            yield from pool.map(lambda path: opened(path, reading), paths)
            return
        for path, _ in zip(paths, pool.map(lambda path: reading.place.file(path).bring(), paths), strict=True):
            yield opened(path, reading)  # one after the other: what is parsed takes many times the memory of the file


def joined(first: cells.Column | RowGroups, parts: list[Any]) -> Picked:
    """The samples of all files that have rows, of which `first` are those of the first."""
    if isinstance(first, RowGroups):
        return RowGroups.whole([group for part in parts for group in part.groups])
    chunks = [chunk for part in parts for chunk in part.cells.chunks]
    return dataclasses.replace(first, cells=pyarrow.chunked_array(chunks, first.cells.type))


def opened(path: str, reading: Reading) -> Table:
    """The rows of one file; raises InvalidManifest for a column that it does not have, DataUnreadable where it can't be read."""
    try:
        return reading.read(reading.place.file(path), *reading.columns)
    except MissingColumn as error:
        raise missing(error, path, reading.columns, field=reading.field) from None
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise DataUnreadable(f"{path} can't be read: {error}", hint="make the file again", field=f"{reading.field}.source") from error


def require_same(column: cells.Column | RowGroups, first: cells.Column | RowGroups, path: str, reading: Reading) -> None:
    """Raise DataUnreadable where one file holds texts and another images."""
    if kind_of(column) != kind_of(first):
        raise DataUnreadable(
            f"column {reading.columns[0]} of {path} holds {column.medium}s, that of other files {first.medium}s",
            hint="give all files samples of one kind",
            field=f"{reading.field}.inputColumn",
        )


def kind_of(column: cells.Column | RowGroups) -> object:
    """What all files have in common; what is in files that are not here is not asked."""
    return RowGroups if isinstance(column, RowGroups) else (column.medium, column.paths)


def placed(paths: pyarrow.ChunkedArray, table: str, place: Place) -> pyarrow.ChunkedArray:
    """Paths below the data set's root: a cell's is relative to its table's folder, or to the root; null where there is no such file."""
    listed, folder = set(place.paths), posixpath.dirname(table)

    def find(cell: str | None) -> str | None:
        if cell is None:
            return None
        choices = (posixpath.normpath(posixpath.join(folder, cell)), posixpath.normpath(cell))
        return next((choice for choice in choices if choice in listed), None)

    return pyarrow.chunked_array([pyarrow.array([find(cell) for cell in paths.to_pylist()], pyarrow.large_string())])


def missing_samples(column: cells.Column | RowGroups) -> Iterator[str]:
    """Of each row why it has no sample; empty where it has one, or where that shows when it is decoded."""
    if isinstance(column, RowGroups):
        return iter([""] * len(column))
    return (missing_sample(column, scalar) for chunk in column.cells.chunks for scalar in chunk)


def missing_sample(column: cells.Column, cell: pyarrow.Scalar) -> str:
    """Why a row has no sample; empty where it has one."""
    if column.paths:
        return "" if cell.is_valid else "no such file"
    return "" if cell.is_valid and cell.as_py().strip() else "no text"


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


def require_medium(rows: Rows, train: Picked, *, field: str) -> None:
    """Raise DataUnreadable for samples of another kind than train's."""
    if rows.samples.medium != train.medium:
        raise DataUnreadable(
            f"split {rows.name} holds {rows.samples.medium}s, train {train.medium}s",
            hint="give all splits samples of one kind",
            field=f"{field}.inputColumn",
        )


def require_known(rows: Rows, known: set[str], *, field: str) -> None:
    """Raise LabelMismatch for a label that train does not have."""
    for row, where in zip(rows.labels, rows.places, strict=True):
        for label in row:
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
    each = max(1, count // max(1, len({label for row in rows.labels for label in row})))
    seen: Counter[str] = Counter()
    chosen = []
    for index, row in enumerate(rows.labels):
        if any(seen[label] < each for label in row or ("",)):
            chosen.append(index)
        seen.update(row or ("",))
    return rows.pick(chosen)
