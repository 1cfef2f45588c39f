"""parquet: files as they are written by pandas, Spark or the hub of Hugging Face; see `tables` for splits and rows.

A row group that can't be decoded costs its own rows only. Names of labels are taken from the metadata that `datasets` writes. Of a
bucket's files nothing but the samples' column and the labels' is brought; images and sound in cells, wherever the file is, a row
group at a time, and kept on the node's disk (`row_groups.py`).
"""

from pathlib import Path

import pyarrow
from pyarrow import ipc, parquet

from kompress_api.places import Dataset
from kompress_jobs.data import Data
from kompress_jobs.samples import cells, tables
from kompress_jobs.samples.data_place import PlacedFile
from kompress_jobs.samples.row_groups import DAMAGED, RowGroup, RowGroups, size_of

SUFFIXES = (".parquet",)
TRANSCRIPTS = True


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None, transcripts: bool = False) -> Data:
    """See `tables.load`."""
    return tables.load(dataset, scratch, SUFFIXES, read, by_parts=True, field=field, first=first, transcripts=transcripts)


def read(file: PlacedFile, input_column: str, label_column: str) -> tables.Table:
    """The two columns of a file; of cells that hold files only where they are."""
    with file.open() as raw, parquet.ParquetFile(raw) as table:
        schema = table.schema_arrow
        for name in (input_column, label_column):
            if name not in schema.names:
                raise tables.MissingColumn(name, schema.names)
        holds_files = cells.holds_files(schema.field(input_column).type)
        wanted = [label_column] if holds_files else list(dict.fromkeys([input_column, label_column]))
        groups = list(range(table.num_row_groups))
        try:
            found = table.read(wanted, use_threads=False) if file.near else kept(file, table, wanted)
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
    by_row_group = RowGroups.whole([RowGroup(file, table.metadata, number, input_column) for number in groups])
    return tables.Table(by_row_group if holds_files else found[input_column], found[label_column], rows, tuple(damaged), names)


class Undecodable(Exception):
    """Some row group is damaged."""


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


def kept(file: PlacedFile, table: parquet.ParquetFile, wanted: list[str]) -> pyarrow.Table:
    """The columns of a file that is far away, mapped from a copy on this node's disk, which all processes share."""
    path = file.copy_of(f"columns {wanted}")
    size = sum(size_of(table.metadata, number, name) for number in range(table.num_row_groups) for name in wanted)

    def write(target: Path) -> None:
        try:
            found = table.read(wanted, use_threads=False)
        except DAMAGED as error:  # and no error of this node's disk
            raise Undecodable(str(error)) from error
        with ipc.new_file(str(target), found.schema) as copy:
            copy.write_table(found)

    while True:
        file.cache.make(path, size, write)
        try:
            return ipc.open_file(pyarrow.memory_map(str(path))).read_all()
        except FileNotFoundError:  # another process made room just then
            continue
        except pyarrow.ArrowInvalid:  # torn when this node went down
            path.unlink(missing_ok=True)
