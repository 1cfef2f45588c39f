"""Where the record batches of an arrow file lie, so that pyarrow reads no more of it than the columns that are asked for.

In the file format a footer says it. In the stream format, which `datasets` of Hugging Face writes, only the header in front of each
batch does: the headers are walked once, and a footer is made of them, behind which the stream reads as a file.
(https://arrow.apache.org/docs/format/Columnar.html, format/Message.fbs, format/File.fbs)
"""

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy
import pyarrow
from flatbuffers import encode, packer
from flatbuffers.number_types import Int64Flags, Uint8Flags
from flatbuffers.table import Table
from pyarrow import ipc

from kompress_jobs.samples.data_place import Parts, PlacedFile

HEAD = 16 << 10
"""Bytes that are asked for where a header is expected; most have less."""
LEAST = 4 << 20
"""Bytes of a batch from which on it is worth the handful of requests that it costs."""
MAGIC = b"ARROW1"
CONTINUES = 0xFFFFFFFF
"""In front of each message of a stream."""
BLOCK = numpy.dtype([("offset", "<i8"), ("header", "<i4"), ("padding", "<i4"), ("body", "<i8")])
"""Where a message lies in a file."""
DICTIONARY, RECORDS = 2, 3
"""Kinds of messages."""
HEADER_TYPE, BODY_LENGTH = 1, 3
"""Fields of a message."""
BLOCKS = {DICTIONARY: 2, RECORDS: 3}
"""Fields of a footer: the blocks of each kind."""


class WithFooter(Parts):
    """A file, of which no more is brought than is read, and behind it a footer."""

    def __init__(self, file: PlacedFile, footer: bytes) -> None:
        super().__init__(file)
        self.footer = footer
        self.size += len(footer)

    def readinto(self, buffer: Any) -> int:
        beyond = self.position - self.file.entry.size
        if beyond < 0:
            return super().readinto(memoryview(buffer)[:-beyond])
        found = self.footer[beyond : beyond + len(buffer)]
        buffer[: len(found)] = found
        self.position += len(found)
        return len(found)


class Small(Exception):
    """Asking for each batch takes longer than bringing all of them."""


def schema_of(raw: io.BufferedReader) -> pyarrow.Schema:
    """The columns of a file in either format. Raises pyarrow.ArrowInvalid for another file."""
    found = ipc.open_file(raw).schema if raw.peek().startswith(MAGIC) else ipc.open_stream(raw).schema
    raw.seek(0)
    return found


def footer_of(file: PlacedFile) -> bytes:
    """What `WithFooter` needs. Raises `Small`, and pyarrow.ArrowInvalid where the file is damaged or no footer can say what it holds."""
    with io.BufferedReader(file.open(), HEAD) as raw:
        if raw.peek().startswith(MAGIC):
            footer = own_footer(raw, file.entry.size)
            require_large(body_lengths(footer)[:1])
            return footer
        schema = schema_of(raw)
        found: dict[int, list[tuple[int, int, int, int]]] = {kind: [] for kind in BLOCKS}
        for kind, block in walk(raw, file.entry.size):
            if kind in found:
                found[kind].append(block)
                require_large([body for *_, body in found[RECORDS][:1]])
    made = bytearray(empty_footer(schema, len(found[RECORDS])))
    for kind, blocks in found.items():
        at, count = placed_blocks(made, kind)
        if count != len(blocks):
            raise pyarrow.ArrowInvalid(f"{len(blocks)} dictionaries for {count} columns that have one")
        made[at : at + count * BLOCK.itemsize] = numpy.array(blocks, dtype=BLOCK).tobytes()
    return bytes(made)


def column_of(file: PlacedFile, footer: bytes, name: str) -> ipc.RecordBatchFileReader:
    """The record batches, of which only this column is brought."""
    index = ipc.open_file(WithFooter(file, footer)).schema.get_field_index(name)
    return ipc.open_file(WithFooter(file, footer), options=ipc.IpcReadOptions(included_fields=[index]))


def require_large(bodies: list[int]) -> None:
    """Raise `Small` for batches of so many bytes."""
    if bodies and min(bodies) < LEAST:
        raise Small


def own_footer(raw: io.BufferedReader, size: int) -> bytes:
    """The end of a file in the file format: its footer, the length of that, and the magic word."""
    end = len(MAGIC) + 4
    raw.seek(max(0, size - end))
    length, magic = struct.unpack(f"<i{len(MAGIC)}s", raw.read(end))
    if magic != MAGIC or not 0 < length < size:
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
    return own_footer(io.BufferedReader(io.BytesIO(content)), len(content))  # type: ignore[arg-type]


def walk(raw: io.BufferedReader, size: int) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """The messages of a stream: the kind of each, and its block."""
    position = 0
    while position < size:
        raw.seek(position)
        continues, length = struct.unpack("<II", raw.read(8).ljust(8, b"\0"))
        if continues == CONTINUES and length == 0:
            return  # the end of the stream
        if continues != CONTINUES or position + 8 + length > size:
            raise pyarrow.ArrowInvalid(f"no message at byte {position}")
        kind, body = told(raw.read(length))
        if not 0 <= body <= size - position - 8 - length:
            raise pyarrow.ArrowInvalid(f"cut off in the message at byte {position}")
        yield kind, (position, 8 + length, 0, body)
        position += 8 + length + body


def told(header: bytes) -> tuple[int, int]:
    """What a message's header says: its kind, and the bytes of its body."""
    try:
        table = root(header)
        kind, body = (table.Offset(4 + 2 * field) for field in (HEADER_TYPE, BODY_LENGTH))
        return (
            table.Get(Uint8Flags, table.Pos + kind) if kind else 0,
            table.Get(Int64Flags, table.Pos + body) if body else 0,
        )
    except (struct.error, IndexError, TypeError, ValueError) as error:
        raise pyarrow.ArrowInvalid(f"no header of a message: {error}") from error


def placed_blocks(footer: bytes | bytearray, kind: int) -> tuple[int, int]:
    """Where the blocks of a kind begin in a footer, and how many there are."""
    table = root(footer)
    field = table.Offset(4 + 2 * BLOCKS[kind])
    return (table.Vector(field), table.VectorLen(field)) if field else (0, 0)


def body_lengths(footer: bytes) -> list[int]:
    """Bytes of each record batch, without its header."""
    at, count = placed_blocks(footer, RECORDS)
    return numpy.frombuffer(footer, BLOCK, count, at)["body"].tolist()  # type: ignore[no-any-return]


def root(content: bytes | bytearray) -> Table:
    """The table that a flatbuffer begins with."""
    return Table(content, encode.Get(packer.uoffset, content, 0))
