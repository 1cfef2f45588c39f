"""The files of a data set: listed where they are (`file://`, `s3://`), and on the local disk when they are needed."""

import fcntl
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from kompress_api.errors import DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs.storage.store import listing


class Place(Protocol):
    """Where the files are."""

    paths: list[str]
    """Relative, sorted, without hidden ones."""

    def bring(self, paths: Iterable[str]) -> Path:
        """The local folder below which these paths can be read."""


class LocalPlace:
    """A folder, or one file."""

    def __init__(self, folder: Path, shown: str, field: str) -> None:
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

    def bring(self, paths: Iterable[str]) -> Path:
        return self.folder


class RemotePlace:
    """A prefix of a bucket, copied once per pod as far as it is asked for; a listing that has changed is copied anew."""

    def __init__(self, dataset: Dataset, scratch: Path, role: str) -> None:
        self.store, found = listing(dataset, role)
        listed = [(entry.key, entry.size, entry.etag) for entry in found]
        self.paths = visible(key for key, _, _ in listed)
        self.folder = scratch / "data" / hashlib.sha256(repr((dataset.source, listed)).encode()).hexdigest()[:32]

    def bring(self, paths: Iterable[str]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            missing = [path for path in paths if not (self.folder / path).exists()]
            if missing:
                self.store.download("", self.folder, missing)
        return self.folder


def visible(paths: Iterable[str]) -> list[str]:
    """Sorted, without files or folders whose name starts with a dot."""
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.split("/")))


def open_place(dataset: Dataset, scratch: Path, *, field: str = "spec.dataset") -> Place:
    """List the files. Raises DataUnreadable when there is no folder or no file, and what storage raises."""
    if dataset.source.startswith("file://"):
        place: Place = LocalPlace(Path(unquote(urlsplit(dataset.source).path)), dataset.source, field)
    else:
        place = RemotePlace(dataset, scratch, role_of(field))
    if not place.paths:
        raise DataUnreadable(f"{dataset.source} holds no file", hint="check the path or prefix", field=f"{field}.source")
    return place


def role_of(field: str) -> str:
    """Whose credentials: `dataset`, or `dataset0`, `dataset1`, ... of `spec.evaluation.datasets[0]`, ..."""
    number = field.rpartition("[")[2].removesuffix("]") if field.endswith("]") else ""
    return f"dataset{number}"
