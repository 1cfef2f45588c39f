"""arrow: a folder as `datasets` of Hugging Face writes it (`save_to_disk`), or any files of arrow; see `tables` for splits and rows.

Files are mapped into memory: a row costs nothing before it is looked at, and processes share what they have read. Of a bucket's files
images and sound in cells are brought a record batch at a time, and kept on the node's disk (`row_groups.py`); texts, and batches so small
that asking for each takes longer, come whole.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow
from pyarrow import ipc

from kompress_api.places import Dataset
from kompress_jobs.data import Data
from kompress_jobs.samples import cells, tables
from kompress_jobs.samples.data_place import PlacedFile
from kompress_jobs.samples.record_batches import HEAD, Small, body_lengths, column_of, footer_of, schema_of
from kompress_jobs.samples.row_groups import RowGroup, RowGroups, kept

SUFFIXES = (".arrow",)
TRANSCRIPTS = True
FOOTER = b"footer"
"""Where the labels' copy says where the record batches are."""
ROOM = 8 << 20
"""Bytes that labels and footer hardly ever exceed."""


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None, transcripts: bool = False) -> Data:
    """See `tables.load`."""
    return tables.load(dataset, scratch, SUFFIXES, read, field=field, first=first, transcripts=transcripts)


def read(file: PlacedFile, input_column: str, label_column: str) -> tables.Table:
    """The two columns of a file, in the stream format that `datasets` uses or the file format."""
    found = None if file.local else by_record_batches(file, input_column, label_column)
    return found or mapped(file.bring(), input_column, label_column)


def mapped(path: Path, input_column: str, label_column: str) -> tables.Table:
    """The two columns of a file on this disk."""
    content = pyarrow.memory_map(str(path))
    try:
        found = ipc.open_stream(content).read_all()
    except pyarrow.ArrowInvalid:
        found = ipc.open_file(content).read_all()
    tables.require_columns(found.schema.names, input_column, label_column)
    found.select([input_column, label_column]).validate(full=True)  # else damaged offsets end the process
    return tables.Table(found[input_column], found[label_column], names=names_of(found.schema, label_column))


def by_record_batches(file: PlacedFile, input_column: str, label_column: str) -> tables.Table | None:
    """The labels of a file that is far away, and where the files in its cells are; None where it is better brought whole."""

    def write(target: Path) -> None:
        footer = footer_of(file)
        with column_of(file, footer, label_column) as labels:
            told = labels.schema.with_metadata({FOOTER: footer})
            with ipc.new_file(str(target), told) as copy:
                for number in range(labels.num_record_batches):
                    batch = labels.get_batch(number)
                    batch.validate(full=True)
                    copy.write_batch(batch)

    try:
        with io.BufferedReader(file.open(), HEAD) as raw:
            schema = schema_of(raw)
        tables.require_columns(schema.names, input_column, label_column)
        if not cells.holds_files(schema.field(input_column).type):
            return None
        labels = kept(file, f"footer and column {label_column}", ROOM, write)
    except (Small, pyarrow.ArrowInvalid):
        return None
    footer = labels.schema.metadata[FOOTER]
    batches = [labels.get_batch(number) for number in range(labels.num_record_batches)]
    groups = [
        RecordBatch(file, number, input_column, batch.num_rows, size, footer)
        for number, (batch, size) in enumerate(zip(batches, body_lengths(footer), strict=True))
    ]
    told = pyarrow.Table.from_batches(batches, labels.schema)[label_column]
    return tables.Table(RowGroups.whole(groups), told, names=names_of(schema, label_column))


@dataclass(frozen=True)
class RecordBatch(RowGroup):
    """Read as it stands in the file."""

    footer: bytes

    @property
    def held(self) -> int:
        return self.size

    def contents(self) -> Iterator[bytes]:
        with column_of(self.file, self.footer, self.column) as table:
            batch = table.get_batch(self.number)
        batch.validate(full=True)  # else damaged offsets end the process
        yield from (cell.as_py() or b"" for cell in cells.files_in(batch.column(0)))


def names_of(schema: pyarrow.Schema, label_column: str) -> tuple[str, ...]:
    """What the numbers of the labels mean."""
    return cells.label_names(schema.metadata or {}, label_column)
