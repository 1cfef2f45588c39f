"""arrow: a folder as `datasets` of Hugging Face writes it (`save_to_disk`), or any files of arrow; see `tables` for splits and rows.

Files are mapped into memory: a row costs nothing before it is looked at, and processes share what they have read. Of a bucket's files
images and sound in cells are brought a record batch at a time, and kept on the node's disk (`samples/row_groups.py`); texts come whole,
and so do batches so small that asking for each takes longer, or so large that memory had better not hold one.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow
from pyarrow import ipc

from kompress_api.places import Dataset
from kompress_jobs.samples import cells, tables
from kompress_jobs.samples.data_place import PlacedFile
from kompress_jobs.samples.record_batches import Layout, Whole, begun, laid_out
from kompress_jobs.samples.row_groups import HELD, CopiedRowGroup, MappedRowGroup, RowGroups, Undecodable, kept
from kompress_jobs.samples.splits import Data

SUFFIXES = (".arrow",)
TRANSCRIPTS = True
log = logging.getLogger(__name__)
FOOTER, COMPRESSED = b"footer", b"compressed"
"""What the labels' copy says of the record batches."""


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None, transcripts: bool = False) -> Data:
    """See `tables.load`."""
    return tables.load(dataset, scratch, SUFFIXES, read, at_once=True, field=field, first=first, transcripts=transcripts)


def read(file: PlacedFile, input_column: str, label_column: str) -> tables.Table:
    """The two columns of a file, in the stream format that `datasets` uses or the file format."""
    try:
        if not file.is_here():
            return by_record_batches(file, input_column, label_column)
    except (Whole, Undecodable, pyarrow.ArrowException):
        pass  # what is wrong with it shows again
    return file.whole(lambda path: mapped(path, input_column, label_column))


def mapped(path: Path, input_column: str, label_column: str) -> tables.Table:
    """The two columns of a file on this disk."""
    content = pyarrow.memory_map(str(path))
    try:
        schema, begin = ipc.open_stream(content).schema, ipc.open_stream
    except pyarrow.ArrowInvalid:
        schema, begin = ipc.open_file(content).schema, ipc.open_file
    tables.require_columns(schema.names, input_column, label_column)
    chosen = sorted({schema.get_field_index(name) for name in (input_column, label_column)})
    content.seek(0)
    found = begin(content, options=ipc.IpcReadOptions(included_fields=chosen)).read_all()
    labels, samples = cells.checked(found[label_column]), found[input_column]
    names = cells.label_names(schema.metadata or {}, label_column)
    if not cells.holds_files(samples.type):
        return tables.Table(cells.checked(samples), labels, names=names)
    groups = [MappedRowGroup(intact(chunk, path)) for chunk in samples.chunks]
    return tables.Table(RowGroups.whole(groups), labels, names=names)


def intact(chunk: pyarrow.Array, path: Path) -> pyarrow.Array:
    """The cells of a record batch, which are empty where it is damaged."""
    try:
        return cells.files_in(chunk)
    except pyarrow.ArrowException as error:
        log.warning("%s: a record batch is damaged: %s", path, error)
        return pyarrow.nulls(len(chunk), pyarrow.large_binary())


def by_record_batches(file: PlacedFile, input_column: str, label_column: str) -> tables.Table:
    """The labels of a file that is far away, and where the files in its cells are. Raises `Whole` where it is better brought whole."""
    raw, schema = begun(file)
    tables.require_columns(schema.names, input_column, label_column)
    if not cells.holds_files(schema.field(input_column).type):
        raise Whole

    def labelled() -> tuple[pyarrow.Schema, list[pyarrow.RecordBatch]]:
        layout = laid_out(raw, schema)
        with layout.column(file, label_column) as found:
            about = {FOOTER: layout.footer, COMPRESSED: b"yes" if layout.compressed else b""}
            return found.schema.with_metadata(about), [cells.checked(found.get_batch(number)) for number in range(found.num_record_batches)]

    with kept(file, f"footer and column {label_column}", labelled) as found:
        about = found.schema.metadata
        batches = [found.get_batch(number) for number in range(found.num_record_batches)]
    layout = Layout(about[FOOTER], bool(about[COMPRESSED]))
    groups = [
        ArrowRecordBatch(file, number, input_column, batch.num_rows, size, layout)
        for number, (batch, size) in enumerate(zip(batches, layout.bodies, strict=True))
    ]
    labels = pyarrow.Table.from_batches(batches, found.schema)[label_column]
    return tables.Table(RowGroups.whole(groups), labels, names=cells.label_names(schema.metadata or {}, label_column))


@dataclass(frozen=True)
class ArrowRecordBatch(CopiedRowGroup):
    """Read as it stands in the file, all of it at once."""

    layout: Layout

    @property
    def cost(self) -> int:
        return HELD if self.layout.compressed else max(1, 2 * self.size)

    def contents(self) -> Iterator[bytes]:
        with self.layout.column(self.file, self.column) as table:
            found = table.get_batch(self.number).column(0)
        yield from (cell.as_py() or b"" for cell in cells.files_in(found))
