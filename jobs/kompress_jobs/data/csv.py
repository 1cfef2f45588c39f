"""csv: files with a header; fields are separated by commas, in files that end in .tsv by tabs; see `tables` for splits and rows.

Both columns are read as text, so that a label 01 stays 01 and a text "NA" a text.
"""

from pathlib import Path

import pyarrow
from pyarrow import csv

from kompress_api.places import Dataset
from kompress_jobs.samples import tables
from kompress_jobs.samples.data_place import PlacedFile
from kompress_jobs.samples.splits import Data

SUFFIXES = (".csv", ".tsv")
TRANSCRIPTS = True


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None, transcripts: bool = False) -> Data:
    """See `tables.load`."""
    return tables.load(dataset, scratch, SUFFIXES, read, field=field, first=first, transcripts=transcripts)


def read(file: PlacedFile, input_column: str, label_column: str) -> tables.Table:
    """The two columns of a file; a row with too few or too many fields is damaged. The header is row 1."""
    return file.whole(lambda path: parsed(path, input_column, label_column))


def parsed(path: Path, input_column: str, label_column: str) -> tables.Table:
    """See `read`."""
    damaged: list[int] = []

    def skip(row: csv.InvalidRow) -> str:
        damaged.append(row.number)
        return "skip"

    wanted, delimiter = [input_column, label_column], "\t" if path.suffix.lower() == ".tsv" else ","
    parsing = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=lambda _: "skip")
    with csv.open_csv(path, parse_options=parsing) as first:
        tables.require_columns(first.schema.names, *wanted)
    parsing.invalid_row_handler = skip
    found = csv.read_csv(
        path,
        read_options=csv.ReadOptions(use_threads=False),
        parse_options=parsing,
        convert_options=csv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(wanted, pyarrow.large_string())),
    )
    skipped = set(damaged)
    rows = [number for number in range(2, 2 + len(found) + len(damaged)) if number not in skipped]
    return tables.Table(found[input_column], found[label_column], rows, tuple(damaged))
