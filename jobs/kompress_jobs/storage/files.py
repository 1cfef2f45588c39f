"""The files of an artifact or a checkpoint: path, size and SHA-256 of each, taken before they leave and checked wherever they arrive."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from kompress_api.base import Model
from kompress_api.errors import ArtifactCorrupt, ArtifactMissing
from kompress_jobs.storage.objects import join, relative_files, safe_path
from kompress_jobs.storage.os_errors import map_os_error
from kompress_jobs.storage.store import Store

Entry = TypeVar("Entry")
Result = TypeVar("Result")
THREADS = max(2, min(8, os.cpu_count() or 1))
"""hashlib lets other threads run while it works."""


class StoredFile(Model):
    """A file as it must be."""

    path: str
    """Below the folder of its artifact, with `/` between the parts."""
    size: int
    """Bytes."""
    sha256: str
    """64 hex digits."""


def describe(folder: Path, paths: Iterable[str] | None = None) -> list[StoredFile]:
    """Size and digest of the folder's files (all, or the relative `paths`), sorted by path; raises StorageFailure."""

    def one(path: str) -> StoredFile:
        try:
            with safe_path(folder, path).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                return StoredFile(path=path, size=file.tell(), sha256=sha256)
        except OSError as error:
            raise map_os_error(error, f"read {folder / path}") from error

    return _in_threads(one, sorted(paths) if paths is not None else relative_files(folder))


def download(store: Store, prefix: str, folder: Path, files: Sequence[StoredFile]) -> None:
    """Bring files into the folder and check each byte.

    Raises ArtifactMissing for a file that is gone, ArtifactCorrupt for one that has changed; the bad file is removed.
    """
    store.download(prefix, folder, [file.path for file in files])
    for expected, found in zip(sorted(files, key=lambda file: file.path), describe(folder, [file.path for file in files]), strict=True):
        if found != expected:
            safe_path(folder, expected.path).unlink()
            raise _corrupt(f"{store.uri}/{join(prefix, expected.path)}", expected, found.size, found.sha256)


def read(store: Store, prefix: str, expected: StoredFile) -> bytes:
    """One small file; raises as `download` does."""
    key = join(prefix, expected.path)
    content = store.read(key)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != expected.sha256:
        raise _corrupt(f"{store.uri}/{key}", expected, len(content), sha256)
    return content


def verify(store: Store, prefix: str, files: Sequence[StoredFile]) -> None:
    """Read every file where it lies; raises as `download` does."""

    def one(expected: StoredFile) -> None:
        key = join(prefix, expected.path)
        info = store.head(key)
        if info is None:
            raise ArtifactMissing(f"{store.uri}/{key} is gone, though its commit names it", hint="let the stage run again")
        if info.size != expected.size:
            raise _corrupt(f"{store.uri}/{key}", expected, info.size, "")
        sha256 = hashlib.sha256()
        for chunk in store.stream(key):
            sha256.update(chunk)
        if sha256.hexdigest() != expected.sha256:
            raise _corrupt(f"{store.uri}/{key}", expected, info.size, sha256.hexdigest())

    _in_threads(one, files)


def _corrupt(where: str, expected: StoredFile, size: int, sha256: str) -> ArtifactCorrupt:
    found = f"{size} bytes with SHA-256 {sha256}" if size == expected.size else f"{size} bytes"
    return ArtifactCorrupt(
        f"{where} has changed since it was committed: {expected.size} bytes with SHA-256 {expected.sha256} were written, {found} are there",
        hint="the next run of the stage that made it replaces it; find out who changed it",
    )


def _in_threads(function: Callable[[Entry], Result], entries: Sequence[Entry]) -> list[Result]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, entries))
