"""Files (images, sound) in the cells of tables, a row group at a time: a row group of parquet, a record batch of arrow.

A table is as large as what lies in it, and shuffled samples come from everywhere in it. So that neither memory nor the first step waits for
all of it, a row group's cells are brought when one of them is looked at, and kept on the node's disk one behind the other, behind the
offsets where each begins. Of the rest of the table only its footer and its labels are read.
"""

import abc
import contextlib
import hashlib
import io
import logging
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol, Self

import numpy
import pyarrow
from pyarrow import ipc

from kompress_jobs.samples import cells
from kompress_jobs.samples.data_place import PlacedFile
from kompress_jobs.samples.encoded import THREADS, Openable
from kompress_jobs.storage.cache import used

log = logging.getLogger(__name__)
HELD = 64 << 20
"""About the bytes that are in memory at once while row groups are copied."""
DAMAGED = (pyarrow.ArrowException, OSError)
"""What pyarrow raises for bytes that can't be decoded."""
OFFSET = 8
"""Bytes of an offset."""


class Memory:
    """What all threads of this process hold at once; who alone wants more than there is gets it alone."""

    def __init__(self, size: int) -> None:
        self.size = self.left = size
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait until there is room for so many bytes."""
        size = min(size, self.size)
        with self.changed:
            self.changed.wait_for(lambda: self.left >= size)
            self.left -= size
        try:
            yield
        finally:
            with self.changed:
                self.left += size
                self.changed.notify_all()


MEMORY = Memory(HELD)


class RowGroup(Protocol):
    """The cells of one column in one row group."""

    @property
    def rows(self) -> int:
        """How many cells there are."""

    @property
    def missing(self) -> bool:
        """Whether the cells are elsewhere."""

    def bring(self) -> None:
        """Have the cells here."""

    def read(self, rows: Iterable[int]) -> Iterator[bytes]:
        """These cells; one that is null, or can't be read, is empty."""


@dataclass(frozen=True)
class MappedRowGroup:
    """Cells that lie in arrow's memory, or on a disk that is mapped into it."""

    cells: pyarrow.Array
    """large_binary."""
    missing = False

    @property
    def rows(self) -> int:
        return len(self.cells)

    def bring(self) -> None:
        """They are here."""

    def read(self, rows: Iterable[int]) -> Iterator[bytes]:
        return (self.cells[row].as_py() or b"" for row in rows)


@dataclass(frozen=True)
class CopiedRowGroup(abc.ABC):
    """Cells that are copied to this node's disk."""

    file: PlacedFile
    number: int
    column: str
    rows: int
    size: int
    """About the bytes of all cells."""

    @property
    @abc.abstractmethod
    def cost(self) -> int:
        """About the bytes that are in memory at once while it is copied."""

    @abc.abstractmethod
    def contents(self) -> Iterator[bytes]:
        """The cells as they stand in the file, what is null empty. Raises one of DAMAGED at the first that can't be read."""

    @property
    def missing(self) -> bool:
        return not used(self.copy)

    @cached_property
    def copy(self) -> Path:
        """Where this node keeps them."""
        return self.file.copy_of(f"cells of row group {self.number} column {self.column}")

    def bring(self) -> None:
        """Make the copy, where it is missing."""
        with MEMORY.taken(self.cost):
            self.file.cache.make(self.copy, self.size, self.write)

    def write(self, target: Path) -> None:
        """Write the cells; what stands behind damaged bytes is empty."""
        offsets = [OFFSET * (self.rows + 1)]
        with target.open("wb") as copy:
            copy.seek(offsets[0])
            for cell in self.readable():
                copy.write(cell)
                offsets.append(offsets[-1] + len(cell))
            offsets += offsets[-1:] * (self.rows + 1 - len(offsets))
            copy.seek(0)
            copy.write(numpy.array(offsets, dtype="<i8").tobytes())

    def readable(self) -> Iterator[bytes]:
        """The cells up to where the row group is damaged."""
        try:
            yield from self.contents()
        except DAMAGED as error:
            log.warning("%s: cells of row group (record batch) %d are damaged: %s", self.file.entry.key, self.number + 1, error)

    def read(self, rows: Iterable[int]) -> Iterator[bytes]:
        """These cells."""
        with self.opened() as copy:
            for row in rows:
                copy.seek(OFFSET * row)
                start, stop = struct.unpack("<2q", copy.read(2 * OFFSET))
                copy.seek(start)
                yield copy.read(stop - start)

    def opened(self) -> BinaryIO:
        """The copy."""
        while True:
            try:
                copy = self.copy.open("rb")
            except FileNotFoundError:  # never brought, or another process made room just then
                self.bring()
                continue
            copy.seek(OFFSET * self.rows)
            if copy.read(OFFSET) == struct.pack("<q", copy.seek(0, io.SEEK_END)):
                return copy
            copy.close()  # torn when this node went down
            self.copy.unlink(missing_ok=True)


class Undecodable(Exception):
    """Bytes of a table that say nothing."""


def kept(file: PlacedFile, part: str, read: Callable[[], tuple[pyarrow.Schema, list[pyarrow.RecordBatch]]]) -> ipc.RecordBatchFileReader:
    """Record batches that `read` takes from a file that is far away, mapped from a copy on this node's disk, which all processes share.
    Raises `Undecodable`, and what `read` raises."""
    path = file.copy_of(part)

    def write(target: Path) -> None:
        try:
            schema, batches = read()
        except DAMAGED as error:  # which is no error of this node's disk
            raise Undecodable(str(error)) from error
        file.cache.make_room(sum(batch.nbytes for batch in batches))
        with ipc.new_file(str(target), schema) as copy:
            for batch in batches:
                copy.write_batch(batch)
        with target.open("rb") as copy_on_disk:  # else it may be whole in name only when this node goes down
            os.fsync(copy_on_disk.fileno())

    while True:
        file.cache.make(path, 0, write)  # how large it is, `write` knows
        try:
            return ipc.open_file(pyarrow.memory_map(str(path)))
        except FileNotFoundError:  # another process made room just then
            continue
        except pyarrow.ArrowInvalid:  # torn when this node went down
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class RowGroups(Openable):
    """The cells of several, as files and as rows of a split (`tables.Picked`)."""

    groups: tuple[RowGroup, ...]
    chosen: numpy.ndarray
    """The rows that are meant, counted over all groups."""

    @classmethod
    def whole(cls, groups: Sequence[RowGroup]) -> Self:
        """All rows of these groups."""
        return cls(tuple(groups), numpy.arange(sum(group.rows for group in groups)))

    @cached_property
    def starts(self) -> numpy.ndarray:
        """First row of each group, and the number of all rows."""
        return numpy.cumsum([0, *(group.rows for group in self.groups)])

    @cached_property
    def medium(self) -> cells.Medium:
        """What the first cell that is there holds; the others are believed to hold the same."""
        return cells.medium_of(next((content for group in self.groups for content in group.read(range(group.rows)) if content), b""))

    @property
    def names(self) -> list[str]:
        """The SHA-256 of each, for which all are brought."""
        self.bring(range(len(self)))
        found = [""] * len(self)
        where = self.where(range(len(self)))
        for number in numpy.unique(where[0]).tolist():
            positions = numpy.flatnonzero(where[0] == number).tolist()
            for position, content in zip(positions, self.groups[number].read(where[1][positions].tolist()), strict=True):
                found[position] = hashlib.sha256(content).hexdigest()
        return found

    def pick(self, rows: list[int]) -> Self:
        """Some of the samples."""
        return replace(self, chosen=self.chosen[numpy.array(rows, dtype=numpy.int64)])

    def __len__(self) -> int:
        return len(self.chosen)

    def open(self, index: int) -> BinaryIO:
        """The content of one."""
        groups, rows = self.where([index])
        return io.BytesIO(next(self.groups[int(groups[0])].read([int(rows[0])])))

    def bring(self, indices: Sequence[int]) -> None:
        """Bring the row groups of these, several at a time."""
        asked = (self.groups[number] for number in numpy.unique(self.where(indices)[0]).tolist())
        if missing := [group for group in asked if group.missing]:
            with ThreadPoolExecutor(THREADS, thread_name_prefix="row-groups") as pool:
                list(pool.map(lambda group: group.bring(), missing))

    def where(self, indices: Sequence[int]) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Of each its group, and its row there."""
        rows = self.chosen[numpy.asarray(indices, dtype=numpy.int64)]
        groups = numpy.searchsorted(self.starts, rows, side="right") - 1
        return groups, rows - self.starts[groups]
