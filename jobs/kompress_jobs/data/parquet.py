"""parquet: files as they are written by pandas, Spark or the hub of Hugging Face; see `tables` for splits and rows.

A row group that can't be decoded costs its own rows only. Names of labels are taken from the metadata that `datasets` writes.
"""

from pathlib import Path

import pyarrow
from pyarrow import parquet

from kompress_api.places import Dataset
from kompress_jobs.data import Data
from kompress_jobs.samples import cells, tables

SUFFIXES = (".parquet",)
TRANSCRIPTS = True


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None, transcripts: bool = False) -> Data:
    """See `tables.load`."""
    return tables.load(dataset, scratch, SUFFIXES, read, field=field, first=first, transcripts=transcripts)


def read(path: Path, input_column: str, label_column: str) -> tables.Table:
    """The two columns of a file."""
    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        for name in (input_column, label_column):
            if name not in schema.names:
                raise tables.MissingColumn(name, schema.names)
        parts: list[pyarrow.Table] = []
        rows: list[int] = []
        damaged: list[int] = []
        row = 1
        for group in range(file.num_row_groups):
            numbers = range(row, row + file.metadata.row_group(group).num_rows)
            row = numbers.stop
            try:
                parts.append(file.read_row_group(group, columns=[input_column, label_column]))
                rows += numbers
            except (pyarrow.ArrowException, OSError):
                damaged += numbers
    types = pyarrow.schema([schema.field(input_column), schema.field(label_column)])
    found = pyarrow.concat_tables(parts) if parts else types.empty_table()
    names = cells.label_names(schema.metadata or {}, label_column)
    return tables.Table(found[input_column], found[label_column], rows, tuple(damaged), names)
