"""parquet: files as they are written by pandas, Spark or the hub of Hugging Face; see `tables` for splits and rows.

A row group that can't be decoded costs its own rows only. Names of labels are taken from the metadata that `datasets` writes. Of a
bucket's files nothing but the samples' column and the labels' is brought; images and sound in cells, wherever the file is, a row
group at a time, and kept on the node's disk (`samples/row_groups.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow
from pyarrow import parquet

from kompress_api.places import Dataset
from kompress_jobs.samples import cells, tables
from kompress_jobs.samples.data_place import PlacedFile
from kompress_jobs.samples.row_groups import DAMAGED, CopiedRowGroup, RowGroups, Undecodable, kept
from kompress_jobs.samples.splits import Data

SUFFIXES = (".parquet",)
TRANSCRIPTS = True
BATCH = 64
"""Most rows that are in memory at once while a row group is copied."""
BUFFER = 8 << 20
"""Bytes that are asked for at once, and about those that such rows have."""


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None, transcripts: bool = False) -> Data:
    """See `tables.load`."""
    return tables.load(dataset, scratch, SUFFIXES, read, at_once=True, field=field, first=first, transcripts=transcripts)


def read(file: PlacedFile, input_column: str, label_column: str) -> tables.Table:
    """The two columns of a file; of cells that hold files only where they are."""
    with file.open() as raw, parquet.ParquetFile(raw) as table:
        schema = table.schema_arrow
        tables.require_columns(schema.names, input_column, label_column)
        holds_files = cells.holds_files(schema.field(input_column).type)
        wanted = [label_column] if holds_files else list(dict.fromkeys([input_column, label_column]))
        groups = list(range(table.num_row_groups))
        try:
            found = table.read(wanted, use_threads=False) if file.local else by_columns(file, table, wanted)
        except (*DAMAGED, Undecodable):
            found, groups = by_groups(table, wanted)
    rows: list[int] = []
    damaged: list[int] = []
    row, decoded = 1, set(groups)
    for number in range(table.metadata.num_row_groups):
        numbers = range(row, row + table.metadata.row_group(number).num_rows)
        row = numbers.stop
        (rows if number in decoded else damaged).extend(numbers)
    names = cells.label_names(schema.metadata or {}, label_column)
    footer = table.metadata
    wanted_groups = [(number, footer.row_group(number)) for number in groups]
    by_row_group = RowGroups.whole(
        [ParquetRowGroup(file, number, input_column, group.num_rows, group.total_byte_size, footer) for number, group in wanted_groups]
    )
    return tables.Table(by_row_group if holds_files else found[input_column], found[label_column], rows, tuple(damaged), names)


def by_groups(table: parquet.ParquetFile, wanted: list[str]) -> tuple[pyarrow.Table, list[int]]:
    """What can be decoded, and the row groups that it is from."""
    parts: list[pyarrow.Table] = []
    numbers: list[int] = []
    for number in range(table.num_row_groups):
        try:
            parts.append(table.read_row_group(number, columns=wanted, use_threads=False))
        except DAMAGED:
            continue
        numbers.append(number)
    types = pyarrow.schema([table.schema_arrow.field(name) for name in wanted])
    return (pyarrow.concat_tables(parts) if parts else types.empty_table()), numbers


def by_columns(file: PlacedFile, table: parquet.ParquetFile, wanted: list[str]) -> pyarrow.Table:
    """The columns of a file that is far away."""

    def read_columns() -> tuple[pyarrow.Schema, list[pyarrow.RecordBatch]]:
        found = table.read(wanted, use_threads=False)
        return found.schema, found.to_batches()

    return kept(file, f"columns {wanted}", read_columns).read_all()


@dataclass(frozen=True)
class ParquetRowGroup(CopiedRowGroup):
    """Decoded some rows at a time."""

    footer: parquet.FileMetaData

    @property
    def cost(self) -> int:
        return BUFFER

    def contents(self) -> Iterator[bytes]:
        rows = min(BATCH, max(1, BUFFER * self.rows // max(1, self.size)))
        with self.file.open() as raw, parquet.ParquetFile(raw, metadata=self.footer, buffer_size=BUFFER, pre_buffer=False) as table:
            for batch in table.iter_batches(rows, row_groups=[self.number], columns=[self.column], use_threads=False):
                yield from (cell.as_py() or b"" for cell in cells.files_in(batch.column(0)))
