"""A folder as a store: objects are files, made whole by a rename or a hard link, and on disk before anyone is told.

Works on any file system with hard links and `flock`, NFS included (Linux turns `flock` into a lock of the server). What is
left of a writer that died are files whose names start with `.kompress-`; no listing shows them.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from kompress_api.errors import (
    InvalidManifest,
    NoConditionalWrites,
)
from kompress_jobs.storage.objects import CHUNK, ObjectInfo, changed, relative_files, safe_path
from kompress_jobs.storage.os_errors import map_os_error

HIDDEN = ".kompress-"
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class FileStore:
    """Implements `store.Store` on `file://`."""

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InvalidManifest(f"{uri} is no absolute path", hint="write file:///path, with three slashes")
        self.root = Path(unquote(parts.path))
        self.uri = uri.rstrip("/")

    def read(self, key: str) -> bytes:
        return self.read_tagged(key)[0]

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        with self._boundary("read", key), self._open(key) as file:
            return file.read(), _etag(os.fstat(file.fileno()))

    def stream(self, key: str) -> Iterator[bytes]:
        with self._boundary("read", key), self._open(key) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def read_part(self, entry: ObjectInfo, start: int, stop: int) -> bytes:
        with self._boundary("read", entry.key), self._open(entry.key) as file:
            etag = _etag(os.fstat(file.fileno()))
            if entry.etag not in (etag, without_inode(etag)):
                raise changed(str(self._path(entry.key)))
            file.seek(start)
            return file.read(stop - start)

    def write(self, key: str, content: bytes) -> None:
        path = self._path(key)
        with self._boundary("write", key), self._temporary(path, content) as temporary:
            temporary.rename(path)
            _sync(path.parent)

    def create(self, key: str, content: bytes) -> bool:
        path = self._path(key)
        with self._boundary("create", key), self._temporary(path, content) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                # Over NFS a link whose answer was lost is tried again and finds itself: the number of names tells.
                if temporary.stat().st_nlink != 2:
                    return False
            except OSError as error:
                if error.errno in _NO_LINKS and os.access(path.parent, os.W_OK):
                    raise NoConditionalWrites(
                        f"{self.uri} is on a file system without hard links ({error.strerror}), so a commit would not be safe",
                        hint="use a file system with hard links (ext4, xfs, btrfs, NFS), or S3",
                    ) from error
                raise
            _sync(path.parent)
        return True

    def replace(self, key: str, content: bytes, etag: str) -> bool:
        path = self._path(key)
        with self._boundary("replace", key), self._locked(path):
            try:
                current = _etag(path.stat())
            except FileNotFoundError:
                return False
            if current != etag:
                return False
            self.write(key, content)
        return True

    def head(self, key: str) -> ObjectInfo | None:
        with self._boundary("look for", key):
            try:
                status = self._path(key).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        if stat.S_ISDIR(status.st_mode):
            return None  # a folder is the prefix of objects, never one itself
        return ObjectInfo(key, status.st_size, _etag(status), status.st_mtime_ns)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # Sorted as S3 does it: by the whole key's bytes, not folder by folder.
        found = sorted(self._walk(prefix), key=lambda entry: entry.key.encode())
        yield from found

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with self._boundary("remove", key):
                path = self._path(key)
                path.unlink(missing_ok=True)
                self._remove_empty(path)

    def remove(self, prefix: str) -> None:
        folder = self._path(prefix.rstrip("/"))
        with self._boundary("remove", prefix):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
            self._remove_empty(folder)

    def upload(self, folder: Path, prefix: str, paths: Iterable[str] | None = None) -> None:
        for relative in relative_files(folder) if paths is None else paths:
            key = f"{prefix.rstrip('/')}/{relative}"
            target = self._path(key)
            with self._boundary("write", key), self._temporary(target, safe_path(folder, relative)) as temporary:
                temporary.rename(target)
                _sync(target.parent)

    def download(
        self, prefix: str, folder: Path, paths: Sequence[str] | None = None, *, listed: Sequence[ObjectInfo] | None = None
    ) -> None:
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        wanted = [entry.key.removeprefix(below) for entry in self.list(below)] if paths is None else paths
        for relative, known in zip(wanted, listed or [None] * len(wanted), strict=True):
            with self._boundary("read", below + relative):
                target = safe_path(folder, relative)
                target.parent.mkdir(parents=True, exist_ok=True)
                source = self._path(below + relative)
                shutil.copyfile(source, target)
                if known is not None and known.etag != _etag(source.stat()):
                    raise changed(str(source))

    def _open(self, key: str) -> BinaryIO:
        try:
            return self._path(key).open("rb")
        except NotADirectoryError as error:  # below a file there is nothing
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._path(key))) from error

    def _path(self, key: str) -> Path:
        return safe_path(self.root, key)

    def _remove_empty(self, path: Path) -> None:
        """A folder is no object: it goes with its last file."""
        for folder in path.parents:
            if self.root not in folder.parents:
                return
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        top = self.root / prefix if prefix else self.root

        def refuse(error: OSError) -> None:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # gone while listed, or never there
                raise error

        with self._boundary("list", prefix):
            for folder, _, names in os.walk(top, onerror=refuse, followlinks=True):
                for name in names:
                    if name.startswith(HIDDEN):
                        continue
                    path = Path(folder, name)
                    with contextlib.suppress(FileNotFoundError):
                        status = path.stat()
                        yield ObjectInfo(path.relative_to(self.root).as_posix(), status.st_size, _etag(status), status.st_mtime_ns)

    @contextlib.contextmanager
    def _temporary(self, path: Path, content: bytes | Path) -> Iterator[Path]:
        """A synced file beside `path`, gone afterwards (or renamed by the caller)."""
        while True:
            temporary = path.parent / f"{HIDDEN}{secrets.token_hex(8)}"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = temporary.open("xb")
                break
            except FileNotFoundError:
                continue  # another process removes folders as they become empty
            except FileExistsError:
                if path.parent.exists() and not path.parent.is_dir():
                    raise
        try:
            with file:
                if isinstance(content, Path):
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, file, CHUNK)
                else:
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Alone among those who replace this file. The lock's file stays: removing it would let two hold it."""
        if not path.parent.is_dir():
            yield
            return
        with (path.parent / f"{HIDDEN}{path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _boundary(self, operation: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise map_os_error(error, f"{operation} {self.root / key}") from error


def _etag(status: os.stat_result) -> str:
    # Files are never changed in place by kompress: a new content is a new inode with a new time.
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def without_inode(etag: str) -> str:
    """What of it tells a file of other times or sizes."""
    return etag.partition("-")[2]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
