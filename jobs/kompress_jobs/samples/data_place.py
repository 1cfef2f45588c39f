"""The files of a data set: listed where they are (`file://`, `s3://`), and on the local disk when they are needed."""

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from kompress_api.errors import ArtifactMissing, DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs.samples.encoded import File, Openable
from kompress_jobs.storage.cache import Cache, node_cache
from kompress_jobs.storage.file import FileStore, without_inode
from kompress_jobs.storage.objects import ObjectInfo
from kompress_jobs.storage.store import Store, listing

Found = TypeVar("Found")


class Place(Protocol):
    """Where the files are."""

    paths: list[str]
    """Relative, sorted, without hidden ones."""
    near: bool
    """Whether every file can be looked at at no cost."""

    def file(self, path: str) -> "PlacedFile":
        """One of them, whole or a part of it."""

    def files(self, paths: Sequence[str]) -> Sequence[File]:
        """These files, each brought when it is looked at."""


@dataclass(frozen=True)
class PlacedFile:
    """A file where it is."""

    store: Store
    entry: ObjectInfo
    cache: Cache
    origin: str
    field: str
    local: Path | None = None
    """Where it can be read as it is; None: it is far away."""

    def bring(self) -> Path:
        """All of it, on the local disk; of a copy that was made others may need the room."""
        with told_as_data(self.field):
            return self.local or self.cache.bring(self.store, [self.entry], origin=self.origin)[0]

    def is_here(self) -> bool:
        """Whether all of it is on the local disk already."""
        return self.local is not None or self.cache.has(self.store, self.entry, origin=self.origin)

    def whole(self, read: Callable[[Path], Found]) -> Found:
        """What `read` makes of all of it."""
        while True:
            try:
                return read(self.bring())
            except FileNotFoundError:
                if self.local:
                    raise

    def open(self) -> "Parts":
        """Its content, of which no more is brought than is read."""
        return Parts(self)

    def copy_of(self, part: str) -> Path:
        """Where this node keeps a part of it."""
        return self.cache.part_of(self.store, self.entry, part, origin=self.origin)


class Parts(io.RawIOBase):
    """A file that is read by parts. Raises DataUnreadable where it has changed since it was listed."""

    def __init__(self, file: PlacedFile) -> None:
        self.file, self.position, self.size = file, 0, file.entry.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: Any) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def read(self, size: int = -1) -> bytes:
        """As they come, without another copy of them."""
        stop = self.size if size < 0 else min(self.position + size, self.size)
        with told_as_data(self.file.field):
            found = self.file.store.read_part(self.file.entry, self.position, stop) if self.position < stop else b""
        self.position += len(found)
        return found


class LocalPlace:
    """A folder, or one file."""

    near = True

    def __init__(self, folder: Path, shown: str, scratch: Path, field: str) -> None:
        self.cache, self.field = node_cache(scratch), field
        if folder.is_file():
            self.folder, self.paths = folder.parent, [folder.name]
            return
        if not folder.is_dir():
            raise DataUnreadable(
                f"{shown} is neither a folder nor a file", hint="check the path, and that the pod mounts it", field=f"{field}.source"
            )
        self.folder = folder
        found = (Path(root, name).relative_to(folder).as_posix() for root, _, names in os.walk(folder, followlinks=True) for name in names)
        self.paths = visible(found)

    def files(self, paths: Sequence[str]) -> list[Path]:
        return [self.folder / path for path in paths]

    def file(self, path: str) -> PlacedFile:
        store = FileStore(self.folder.absolute().as_uri())
        with told_as_data(self.field):
            entry = store.head(path)
        if entry is None:
            raise DataUnreadable(f"{self.folder / path} is no file", hint="mend the link, or remove it", field=f"{self.field}.source")
        # Some network file systems give a file another inode when it is looked at again.
        return PlacedFile(store, replace(entry, etag=without_inode(entry.etag)), self.cache, "", self.field, self.folder / path)


class RemotePlace:
    """A prefix of a bucket. Its files are copied to this node as they are asked for, under the names that a listing gave them now."""

    near = False

    def __init__(self, dataset: Dataset, scratch: Path, role: str, field: str) -> None:
        self.store, found = listing(dataset, role)
        self.objects = {entry.key: entry for entry in found}
        self.paths = visible(self.objects)
        self.cache, self.origin, self.field = node_cache(scratch), dataset.endpoint or "", field

    def bring(self, paths: Sequence[str]) -> list[Path]:
        with told_as_data(self.field):
            return self.cache.bring(self.store, [self.objects[path] for path in paths], origin=self.origin)

    def file(self, path: str) -> PlacedFile:
        return PlacedFile(self.store, self.objects[path], self.cache, self.origin, self.field)

    def files(self, paths: Sequence[str]) -> "Streamed":
        return Streamed(self, paths)


class Streamed(Openable):
    """Files that are copied when they are looked at."""

    def __init__(self, place: RemotePlace, paths: Sequence[str]) -> None:
        self.place, self.paths = place, paths

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> BinaryIO:
        """The content of one."""
        place = self.place
        with told_as_data(place.field):
            return place.cache.open(place.store, place.objects[self.paths[index]], origin=place.origin)

    def bring(self, indices: Sequence[int]) -> None:
        """Copy these, several at a time."""
        self.place.bring([self.paths[index] for index in indices])


@contextlib.contextmanager
def told_as_data(field: str) -> Iterator[None]:
    """A file that has changed or is gone is the data set's fault."""
    try:
        yield
    except ArtifactMissing as error:  # ArtifactCorrupt too
        raise DataUnreadable(error.message, hint=error.hint, field=f"{field}.source") from error


def visible(paths: Iterable[str]) -> list[str]:
    """Sorted, without files or folders whose name starts with a dot."""
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.split("/")))


def open_place(dataset: Dataset, scratch: Path, *, field: str = "spec.dataset") -> Place:
    """List the files. Raises DataUnreadable when there is no folder or no file, and what storage raises."""
    if dataset.source.startswith("file://"):
        place: Place = LocalPlace(Path(unquote(urlsplit(dataset.source).path)), dataset.source, scratch, field)
    else:
        place = RemotePlace(dataset, scratch, role_of(field), field)
    if not place.paths:
        raise DataUnreadable(f"{dataset.source} holds no file", hint="check the path or prefix", field=f"{field}.source")
    return place


def role_of(field: str) -> str:
    """Whose credentials: `dataset`, or `dataset0`, `dataset1`, ... of `spec.evaluation.datasets[0]`, ..."""
    number = field.rpartition("[")[2].removesuffix("]") if field.endswith("]") else ""
    return f"dataset{number}"
