"""Copies of a data set's objects on this node, for all processes and pods that see the folder.

A copy's name is made of where the object is and of its ETag: what has changed in the bucket is another copy, and no copy is ever wrong.
When the disk fills up, those that were not looked at for longest go. A copy is there whole or not at all; of processes that want the
same ones, one brings them and the others wait.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from kompress_api.contract import CACHE_FOLDER, ENV_CACHE
from kompress_jobs.storage.objects import ObjectInfo, safe_path
from kompress_jobs.storage.os_errors import map_os_error
from kompress_jobs.storage.store import Store

KEPT_FREE = 0.11
"""Share of the disk that copies leave free: at a tenth the kubelet begins to evict pods."""
ALWAYS = 0.01
"""Share of the disk that copies may take although less than KEPT_FREE is left: else a set of any size would be copied anew in every epoch.
On a disk that others have filled up to a tenth, this much is nearer to evictions."""
ABANDONED_SECONDS = 86_400.0
"""Age from which on what lies half brought belongs to nobody."""
INCOMING = "incoming"
LOCK = ".lock"


class Cache:
    """Copies below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def bring(self, store: Store, objects: Sequence[ObjectInfo], *, origin: str) -> list[Path]:
        """The copies of `objects` as a listing of `store` showed them, made where they are missing. `origin` tells stores with one URI
        apart. Raises what `Store.download` raises, ArtifactCorrupt for an object that has changed since, StorageFailure without room."""
        paths = [self.folder / name_of(f"{origin} {store.uri}", entry) for entry in objects]
        missing = {path: entry for path, entry in zip(paths, objects, strict=True) if not used(path)}
        if missing:
            try:
                with self.locked(paths[0]):  # that others who want the same lock, too
                    self.fill(store, {path: entry for path, entry in missing.items() if not path.exists()})
            except OSError as error:
                raise map_os_error(error, f"keep copies of {store.uri} in {self.folder}") from error
        return paths

    def fill(self, store: Store, missing: dict[Path, ObjectInfo]) -> None:
        """Bring them aside, then put each in its place."""
        if not missing:
            return
        with self.aside(sum(entry.size for entry in missing.values())) as incoming:
            entries = list(missing.values())
            store.download("", incoming, [entry.key for entry in entries], listed=entries)
            for path, entry in missing.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                safe_path(incoming, entry.key).replace(path)

    def has(self, store: Store, entry: ObjectInfo, *, origin: str) -> bool:
        """Whether there is a copy of an object; see `bring`."""
        return used(self.folder / name_of(f"{origin} {store.uri}", entry))

    def part_of(self, store: Store, entry: ObjectInfo, part: str, *, origin: str) -> Path:
        """Where a part of an object is kept; see `make`."""
        return self.folder / name_of(f"{part} of {origin} {store.uri}", entry)

    def make(self, path: Path, size: int, write: Callable[[Path], None]) -> None:
        """Have `write` make what is kept there, about `size` bytes, where it is missing. Raises what `write` raises, StorageFailure
        without room."""
        if used(path):
            return
        try:
            with self.locked(path):
                if not path.exists():
                    with self.aside(size) as incoming:
                        write(incoming / "part")
                        path.parent.mkdir(parents=True, exist_ok=True)
                        (incoming / "part").replace(path)
        except OSError as error:
            raise map_os_error(error, f"keep {path}") from error

    @contextlib.contextmanager
    def aside(self, size: int) -> Iterator[Path]:
        """A folder for what is on its way, with room for `size` bytes."""
        incoming = self.folder / INCOMING / secrets.token_hex(8)
        incoming.mkdir(parents=True)
        try:
            self.make_room(size)
            yield incoming
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Alone among those whose first copy has this name, or one like it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{path.parent.name}{LOCK}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def make_room(self, needed: int) -> None:
        """Remove the copies that were not used for longest, where the disk would fill up; what a killed process left half brought, too."""
        disk = shutil.disk_usage(self.folder)
        short = needed + int(disk.total * KEPT_FREE) - disk.free
        if short <= 0:
            return
        found = []
        for path in (Path(root, name) for root, _, names in os.walk(self.folder) for name in names if not name.endswith(LOCK)):
            with contextlib.suppress(FileNotFoundError):  # others make room, too
                status = path.stat()
                if not self.is_coming(path, status):
                    found.append((status.st_mtime_ns, status.st_size, path))
        beyond = needed + sum(size for _, size, _ in found) - int(disk.total * ALWAYS)
        short = max(needed - disk.free, min(short, beyond))
        for _, size, path in sorted(found):
            if short <= 0:
                return
            path.unlink(missing_ok=True)
            short -= size

    def is_coming(self, path: Path, status: os.stat_result) -> bool:
        """Whether somebody is bringing this file just now."""
        return path.is_relative_to(self.folder / INCOMING) and time.time() - status.st_mtime < ABANDONED_SECONDS

    def open(self, store: Store, entry: ObjectInfo, *, origin: str) -> BinaryIO:
        """The content of one object; see `bring`."""
        path = self.folder / name_of(f"{origin} {store.uri}", entry)
        while True:
            try:
                return path.open("rb")
            except FileNotFoundError:  # never brought, or another process made room just then
                self.bring(store, [entry], origin=origin)


def node_cache(scratch: Path) -> Cache:
    """The cache of this node, where one is mounted (KOMPRESS_CACHE, else CACHE_FOLDER) and can be written; else this pod's own."""
    named = os.environ.get(ENV_CACHE)
    if named:
        return Cache(Path(named))
    mounted = Path(CACHE_FOLDER)
    return Cache(mounted if os.access(mounted, os.W_OK | os.X_OK) else scratch / "data")


def name_of(place: str, entry: ObjectInfo) -> str:
    """Where the copy lies; with the object's ending, by which some libraries know what is in a file."""
    digest = hashlib.sha256(f"{place} {entry.key} {entry.etag} {entry.size}".encode()).hexdigest()
    return f"{digest[:2]}/{digest[2:]}{Path(entry.key).suffix}"


def used(path: Path) -> bool:
    """Whether the copy is there; it counts as used now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's: it can be read, and is as old as it is
        return True
    return True
