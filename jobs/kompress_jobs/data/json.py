"""json: one object a line (JSON lines), or one array of objects; see `tables` for splits and rows."""

import json
from pathlib import Path
from typing import Any

import pyarrow

from kompress_api.places import Dataset
from kompress_jobs.samples import cells, tables
from kompress_jobs.samples.data_place import PlacedFile
from kompress_jobs.samples.splits import Data

SUFFIXES = (".json", ".jsonl", ".ndjson")
TRANSCRIPTS = True


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None, transcripts: bool = False) -> Data:
    """See `tables.load`."""
    return tables.load(dataset, scratch, SUFFIXES, read, field=field, first=first, transcripts=transcripts)


def read(file: PlacedFile, input_column: str, label_column: str) -> tables.Table:
    """The two fields of a file's objects; a line that is no object is damaged. Of lines the line counts, of an array the position."""
    objects, damaged = objects_of(file.whole(lambda path: path.read_text(encoding="utf-8")))
    names = list(dict.fromkeys(name for found in objects.values() for name in found))
    if objects:
        tables.require_columns(names, input_column, label_column)
    found_texts = [value if isinstance(value := found.get(input_column), str) else None for found in objects.values()]
    texts = pyarrow.array(found_texts, pyarrow.large_string())
    labels = labels_of([found.get(label_column) for found in objects.values()])
    return tables.Table(*(pyarrow.chunked_array([part]) for part in (texts, labels)), rows=list(objects), damaged=tuple(damaged))


def labels_of(values: list[Any]) -> pyarrow.Array:
    """Text, numbers and truth values are labels; where one row has a list of them, all have."""
    if not any(isinstance(value, list) for value in values):
        return pyarrow.array([cells.label_of(value, ()) for value in values], pyarrow.large_string())
    rows = [
        None if value is None else [cells.label_of(part, ()) for part in (value if isinstance(value, list) else [value])]
        for value in values
    ]
    return pyarrow.array(rows, pyarrow.list_(pyarrow.large_string()))


def objects_of(content: str) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """Objects by number from 1, and the numbers of what is none. Raises ValueError for an array that can't be parsed."""
    if content.lstrip().startswith("["):
        found = dict(enumerate(json.loads(content), start=1))
    else:
        found = {number: parsed(line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()}
    damaged = [number for number, value in found.items() if not isinstance(value, dict)]
    return {number: value for number, value in found.items() if isinstance(value, dict)}, damaged


def parsed(line: str) -> Any:
    """A line's value, None where it has none."""
    try:
        return json.loads(line)
    except ValueError:
        return None
