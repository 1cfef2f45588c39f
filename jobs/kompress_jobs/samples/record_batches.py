"""Where the record batches of an arrow file lie, so that pyarrow reads no more of it than the columns that are asked for.

In the file format a footer says it. In the stream format, which `datasets` of Hugging Face writes, only the header in front of each
batch does: the headers are walked once, and a footer is made of them, behind which the stream reads as a file.
(https://arrow.apache.org/docs/format/Columnar.html, format/Message.fbs, format/File.fbs)
"""

import bisect
import io
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy
import pyarrow
from flatbuffers import encode, packer
from flatbuffers.number_types import Int64Flags, Uint8Flags
from flatbuffers.table import Table
from pyarrow import ipc

from kompress_jobs.samples.data_place import Parts, PlacedFile
from kompress_jobs.samples.row_groups import HELD

HEAD = 16 << 10
"""Bytes that are asked for where a header is expected; most have less."""
BEFORE = 4 << 10
"""... and of what stands in front of it: labels are often a batch's last column."""
LEAST = 4 << 20
"""Bytes of a batch from which on it is worth the handful of requests that it costs."""
MAGIC = b"ARROW1"
CONTINUES = 0xFFFFFFFF
"""In front of each message of a stream."""
BLOCK = numpy.dtype([("offset", "<i8"), ("header", "<i4"), ("padding", "<i4"), ("body", "<i8")])
"""Where a message lies in a file."""
DICTIONARY, RECORDS = 2, 3
"""Kinds of messages."""
HEADER_TYPE, HEADER, BODY_LENGTH = 1, 2, 3
"""Fields of a message."""
COMPRESSION = 3
"""Field of a record batch."""
BLOCKS = {DICTIONARY: 2, RECORDS: 3}
"""Fields of a footer: the blocks of each kind."""


class Whole(Exception):
    """The file is better brought whole."""


class Known(Parts):
    """A file of which some parts are known: what was read before, and a footer that stands behind its end."""

    def __init__(self, file: PlacedFile, known: Mapping[int, bytes]) -> None:
        super().__init__(file)
        self.known, self.starts = dict(known), sorted(known)
        self.size = max([file.entry.size, *(start + len(content) for start, content in known.items())])

    def read(self, size: int = -1) -> bytes:
        """See `Parts`."""
        index = bisect.bisect_right(self.starts, self.position) - 1
        if index >= 0 and size >= 0:
            skipped = self.position - self.starts[index]
            content = self.known[self.starts[index]][skipped : skipped + size]
            if len(content) == size:
                self.position += size
                return content
        return super().read(size)

    def look(self, start: int, stop: int) -> None:
        """Read a part and know it from now on."""
        start, at = max(0, start), self.position
        self.position = start
        self.known[start] = self.read(min(stop, self.size) - start)
        bisect.insort(self.starts, start)
        self.position = at


@dataclass
class Layout:
    """Where everything lies in a file."""

    footer: bytes
    compressed: bool
    known: dict[int, bytes] = field(default_factory=dict)
    """What was read to find out."""

    @property
    def bodies(self) -> list[int]:
        """Bytes of each record batch, without its header."""
        return blocks_of(self.footer, RECORDS)["body"].tolist()  # type: ignore[no-any-return]

    def column(self, file: PlacedFile, name: str) -> ipc.RecordBatchFileReader:
        """The record batches, of which only this column is brought."""
        known = self.known | {file.entry.size: self.footer}
        index = ipc.open_file(Known(file, known)).schema.get_field_index(name)
        return ipc.open_file(Known(file, known), options=ipc.IpcReadOptions(included_fields=[index]))


def begun(file: PlacedFile) -> tuple[Known, pyarrow.Schema]:
    """The beginning of a file in either format, and its columns. Raises pyarrow.ArrowInvalid for another file."""
    raw = Known(file, {})
    raw.look(0, HEAD)
    if raw.known[0].startswith(MAGIC):
        return raw, ipc.open_file(raw).schema
    if not raw.known[0].startswith(CONTINUES.to_bytes(4, "little")):
        raise pyarrow.ArrowInvalid("it does not begin as arrow does")
    return raw, ipc.open_stream(raw).schema


def laid_out(raw: Known, schema: pyarrow.Schema) -> Layout:
    """What is where. Raises `Whole`, and pyarrow.ArrowInvalid where the file is damaged or no footer can say what it holds."""
    return laid_out_by_footer(raw) if raw.known[0].startswith(MAGIC) else laid_out_by_headers(raw, schema)


def laid_out_by_footer(raw: Known) -> Layout:
    """Of the file format; all batches are compressed, or none."""
    footer = own_footer(raw, raw.file.entry.size)
    dictionaries, records = (blocks_of(footer, kind).tolist() for kind in (DICTIONARY, RECORDS))
    for offset, header, _, body in dictionaries + records:
        if offset < 0 or header < 8 or body < 0 or offset + header + body > raw.file.entry.size:
            raise pyarrow.ArrowInvalid(f"its footer names a message at byte {offset} that is not there")
    if sum(body for *_, body in dictionaries) > HEAD:
        raise Whole  # they are brought again with every batch
    compressed = False
    for offset, header, *_ in records[:1]:
        raw.seek(offset + 8)
        compressed = message(raw.read(header - 8)).compressed
    for count, block in enumerate(records, start=1):
        require_worthwhile(count, block, compressed=compressed)
    return Layout(footer, compressed, raw.known)


def laid_out_by_headers(raw: Known, schema: pyarrow.Schema) -> Layout:
    """Of the stream format."""
    records: list[tuple[int, ...]] = []
    compressed = False
    for found, block in walk(raw):
        if found.kind == DICTIONARY:
            raise Whole  # which column it belongs to is told by numbers, and a footer made anew has others
        if found.kind == RECORDS:
            records.append(block)
            compressed = compressed or found.compressed
            require_worthwhile(len(records), block, compressed=compressed)
    return Layout(footer_with(schema, records), compressed, raw.known)


def require_worthwhile(count: int, block: tuple[int, ...], *, compressed: bool) -> None:
    """Raise `Whole` where the first `count` batches are small on average, without asking for more of them, and for one that memory had
    better not hold: a file that isn't compressed is mapped."""
    offset, header, _, body = block
    if offset + header + body < LEAST * count or (body > HELD and not compressed):
        raise Whole


def footer_with(schema: pyarrow.Schema, records: list[tuple[int, ...]]) -> bytes:
    """The footer of a file that has these record batches. Raises `Whole` for columns that have dictionaries."""
    made = bytearray(empty_footer(schema, len(records)))
    if placed_blocks(made, DICTIONARY)[1]:
        raise Whole
    at, count = placed_blocks(made, RECORDS)
    made[at : at + count * BLOCK.itemsize] = numpy.array(records, dtype=BLOCK).tobytes()
    return bytes(made)


def own_footer(raw: io.RawIOBase, size: int) -> bytes:
    """The end of a file in the file format: its footer, the length of that, and the magic word."""
    end = len(MAGIC) + 4
    raw.seek(max(0, size - end))
    length, magic = struct.unpack(f"<i{len(MAGIC)}s", raw.read(end).ljust(end, b"\0"))
    if magic != MAGIC or not 0 < length < size - end:
        raise pyarrow.ArrowInvalid("cut off: its end is no footer")
    raw.seek(size - end - length)
    return raw.read(length + end)


def empty_footer(schema: pyarrow.Schema, batches: int) -> bytes:
    """The footer of a file with so many batches, none of which has a row."""
    written = pyarrow.BufferOutputStream()
    with ipc.new_file(written, schema) as file:
        for _ in range(batches):
            file.write_batch(pyarrow.RecordBatch.from_pylist([], schema=schema))
    content = written.getvalue().to_pybytes()
    return own_footer(io.BytesIO(content), len(content))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Message:
    """What a header says."""

    kind: int
    body: int
    """Bytes behind the header."""
    compressed: bool


def walk(raw: Known) -> Iterator[tuple[Message, tuple[int, int, int, int]]]:
    """The messages of a stream, and the block of each."""
    position, size = 0, raw.file.entry.size
    while position < size:
        if position:
            raw.look(position - BEFORE, position + HEAD)
        raw.seek(position)
        continues, length = struct.unpack("<II", raw.read(8).ljust(8, b"\0"))
        if continues == CONTINUES and length == 0:
            return  # the end of the stream
        if continues != CONTINUES or position + 8 + length > size:
            raise pyarrow.ArrowInvalid(f"no message at byte {position}")
        found = message(raw.read(length))
        if not 0 <= found.body <= size - position - 8 - length:
            raise pyarrow.ArrowInvalid(f"cut off in the message at byte {position}")
        yield found, (position, 8 + length, 0, found.body)
        position += 8 + length + found.body


def message(header: bytes) -> Message:
    """Raises pyarrow.ArrowInvalid for something else."""
    try:
        table = root(header)
        kind, body, inner = (table.Offset(4 + 2 * number) for number in (HEADER_TYPE, BODY_LENGTH, HEADER))
        found = table.Get(Uint8Flags, table.Pos + kind) if kind else 0
        compressed = False
        if found == RECORDS and inner:
            batch = Table(header, table.Indirect(table.Pos + inner))
            compressed = batch.Offset(4 + 2 * COMPRESSION) != 0
        return Message(found, table.Get(Int64Flags, table.Pos + body) if body else 0, compressed)
    except (struct.error, IndexError, TypeError, ValueError) as error:
        raise pyarrow.ArrowInvalid(f"no header of a message: {error}") from error


def placed_blocks(footer: bytes | bytearray, kind: int) -> tuple[int, int]:
    """Where the blocks of a kind begin in a footer, and how many there are."""
    table = root(footer)
    offset = table.Offset(4 + 2 * BLOCKS[kind])
    return (table.Vector(offset), table.VectorLen(offset)) if offset else (0, 0)


def blocks_of(footer: bytes, kind: int) -> numpy.ndarray:
    """The blocks of a kind, of type BLOCK."""
    at, count = placed_blocks(footer, kind)
    return numpy.frombuffer(footer, BLOCK, count, at)


def root(content: bytes | bytearray) -> Table:
    """The table that a flatbuffer begins with."""
    return Table(content, encode.Get(packer.uoffset, content, 0))
