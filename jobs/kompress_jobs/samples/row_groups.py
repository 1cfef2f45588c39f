"""Files (images, sound) in the cells of parquet, a row group at a time.

A table is as large as what lies in it, and shuffled samples come from everywhere in it. So that neither memory nor the first step waits for
all of it, a row group's cells are brought when one of them is looked at, and kept on the node's disk one behind the other, behind the
offsets where each begins. Of the rest of the table only its footer and its labels are read.
"""

import hashlib
import io
import logging
import struct
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Self

import numpy
import pyarrow
from pyarrow import parquet

from kompress_jobs.samples import cells
from kompress_jobs.samples.data_place import Parts, PlacedFile
from kompress_jobs.samples.encoded import THREADS, Openable
from kompress_jobs.storage.cache import used

log = logging.getLogger(__name__)
BATCH = 64
"""Most rows that are in memory at once while a row group is copied."""
BUFFER = 8 << 20
"""Bytes that are asked for at once, and about those that such rows have."""
DAMAGED = (pyarrow.ArrowInvalid, pyarrow.ArrowSerializationError, OSError)
"""What pyarrow raises for bytes that can't be decoded."""
OFFSET = 8
"""Bytes of an offset."""


@dataclass(frozen=True)
class RowGroup:
    """The cells of one column in one row group."""

    file: PlacedFile
    footer: parquet.FileMetaData
    number: int
    column: str

    @cached_property
    def rows(self) -> int:
        """How many cells there are."""
        return int(self.footer.row_group(self.number).num_rows)

    @cached_property
    def size(self) -> int:
        """Bytes of all cells."""
        return size_of(self.footer, self.number, self.column)

    @cached_property
    def copy(self) -> Path:
        """Where this node keeps them."""
        return self.file.copy_of(f"cells of row group {self.number} column {self.column}")

    def bring(self) -> None:
        """Make the copy, where it is missing."""
        self.file.cache.make(self.copy, self.size, self.write)

    def write(self, target: Path) -> None:
        """Write the cells; what is null is empty, and so is what stands behind damaged bytes."""
        offsets = [OFFSET * (self.rows + 1)]
        with self.file.open() as raw, target.open("wb") as copy:
            copy.seek(offsets[0])
            for cell in self.contents(raw):
                copy.write(cell)
                offsets.append(offsets[-1] + len(cell))
            offsets += offsets[-1:] * (self.rows + 1 - len(offsets))
            copy.seek(0)
            copy.write(numpy.array(offsets, dtype="<i8").tobytes())

    def contents(self, raw: Parts) -> Iterator[bytes]:
        """The cells as they stand in the file, up to where it is damaged."""
        rows = min(BATCH, max(1, BUFFER * self.rows // max(1, self.size)))
        try:
            with parquet.ParquetFile(raw, metadata=self.footer, buffer_size=BUFFER, pre_buffer=False) as table:
                for batch in table.iter_batches(rows, row_groups=[self.number], columns=[self.column], use_threads=False):
                    yield from (cell.as_py() or b"" for cell in cells.files_in(batch.column(0)))
        except DAMAGED as error:
            log.warning("%s: row group %d is damaged: %s", self.file.entry.key, self.number + 1, error)

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


def size_of(footer: parquet.FileMetaData, number: int, column: str) -> int:
    """Bytes of a column's cells in a row group."""
    group = footer.row_group(number)
    leaves = (group.column(index) for index in range(group.num_columns))
    return sum(leaf.total_uncompressed_size for leaf in leaves if f"{leaf.path_in_schema}.".startswith(f"{column}."))


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
        if missing := [group for group in asked if not used(group.copy)]:
            with ThreadPoolExecutor(THREADS, thread_name_prefix="row-groups") as pool:
                list(pool.map(RowGroup.bring, missing))

    def where(self, indices: Sequence[int]) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Of each its group, and its row there."""
        rows = self.chosen[numpy.asarray(indices, dtype=numpy.int64)]
        groups = numpy.searchsorted(self.starts, rows, side="right") - 1
        return groups, rows - self.starts[groups]
