"""parquet: files as they are written by pandas, Spark or the hub of Hugging Face; see `tables` for splits and rows.

A row group that can't be decoded costs its own rows only. Names of labels are taken from the metadata that `datasets` writes. Of a bucket's
files nothing but these two columns is brought, and images and sound in cells a row group at a time (`row_groups.py`).
"""

from pathlib import Path

import pyarrow
from pyarrow import parquet

from kompress_api.places import Dataset
from kompress_jobs.data import Data
from kompress_jobs.samples import cells, tables
from kompress_jobs.samples.data_place import PlacedFile
from kompress_jobs.samples.row_groups import BUFFER, RowGroup, RowGroups

SUFFIXES = (".parquet",)
TRANSCRIPTS = True


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None, transcripts: bool = False) -> Data:
    """See `tables.load`."""
    return tables.load(dataset, scratch, SUFFIXES, read, by_parts=True, field=field, first=first, transcripts=transcripts)


def read(file: PlacedFile, input_column: str, label_column: str) -> tables.Table:
    """The two columns of a file; of cells that hold files only where they are."""
    with file.open() as raw, parquet.ParquetFile(raw, buffer_size=BUFFER, pre_buffer=False) as table:
        schema = table.schema_arrow
        for name in (input_column, label_column):
            if name not in schema.names:
                raise tables.MissingColumn(name, schema.names)
        far = cells.holds_files(schema.field(input_column).type)
        wanted = [label_column] if far else [input_column, label_column]
        parts: list[pyarrow.Table] = []
        groups: list[RowGroup] = []
        rows: list[int] = []
        damaged: list[int] = []
        row = 1
        for number in range(table.num_row_groups):
            numbers = range(row, row + table.metadata.row_group(number).num_rows)
            row = numbers.stop
            try:
                parts.append(table.read_row_group(number, columns=wanted, use_threads=False))
            except (pyarrow.ArrowException, OSError):
                damaged += numbers
                continue
            rows += numbers
            groups.append(RowGroup(file, table.metadata, number, input_column))
    types = pyarrow.schema([schema.field(name) for name in wanted])
    found = pyarrow.concat_tables(parts) if parts else types.empty_table()
    names = cells.label_names(schema.metadata or {}, label_column)
    inputs = RowGroups.whole(groups) if far else found[input_column]
    return tables.Table(inputs, found[label_column], rows, tuple(damaged), names)
