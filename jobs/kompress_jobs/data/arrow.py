"""arrow: a folder as `datasets` of Hugging Face writes it (`save_to_disk`), or any files of arrow; see `tables` for splits and rows.

Files are mapped into memory: a row costs nothing before it is looked at, and processes share what they have read.
"""

from pathlib import Path

import pyarrow
from pyarrow import ipc

from kompress_api.places import Dataset
from kompress_jobs.data import Data
from kompress_jobs.samples import cells, tables

SUFFIXES = (".arrow",)
TRANSCRIPTS = True


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None, transcripts: bool = False) -> Data:
    """See `tables.load`."""
    return tables.load(dataset, scratch, SUFFIXES, read, field=field, first=first, transcripts=transcripts)


def read(path: Path, input_column: str, label_column: str) -> tables.Table:
    """The two columns of a file, in the stream format that `datasets` uses or the file format."""
    mapped = pyarrow.memory_map(str(path))
    try:
        found = ipc.open_stream(mapped).read_all()
    except pyarrow.ArrowInvalid:
        found = ipc.open_file(mapped).read_all()
    for name in (input_column, label_column):
        if name not in found.schema.names:
            raise tables.MissingColumn(name, found.schema.names)
    names = cells.label_names(found.schema.metadata or {}, label_column)
    return tables.Table(found[input_column], found[label_column], names=names)
