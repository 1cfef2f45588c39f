"""Objects of a store, whatever keeps them: what a listing tells of one, its key, and the file that it is in a folder."""

import dataclasses
from pathlib import Path, PurePosixPath

from kompress_api.errors import ArtifactCorrupt

PATIENCE = 600.0
"""Seconds that a stage retries a store out of reach."""
PREFLIGHT_PATIENCE = 30.0
"""Seconds that the preflight does."""
CHUNK = 1 << 20
"""Bytes that `stream` yields at most."""


@dataclasses.dataclass(frozen=True)
class ObjectInfo:
    """An object, as a listing or a head shows it."""

    key: str
    """Path below the store's URI."""
    size: int
    """Bytes."""
    etag: str
    """Changes whenever the object does; opaque, for `replace` and for fingerprints."""
    mtime_ns: int
    """Last change, nanoseconds since the epoch."""


def changed(where: str) -> ArtifactCorrupt:
    """An object that is not what it was when it was listed."""
    return ArtifactCorrupt(f"{where} was overwritten while it was in use", hint="run again; write what is new to a new place")


def join(*parts: str) -> str:
    """One key out of parts, empty ones left out."""
    return "/".join(part.strip("/") for part in parts if part.strip("/"))


def safe_path(folder: Path, relative: str) -> Path:
    """Where an object's file goes; raises ArtifactCorrupt for a key that points out of the folder."""
    path = PurePosixPath(relative)
    if not relative or path.is_absolute() or ".." in path.parts or "\\" in relative or "\0" in relative:
        raise ArtifactCorrupt(f"{relative!r} is no path within a folder", hint="do not use this place: somebody else wrote it")
    return folder / path


def relative_files(folder: Path) -> list[str]:
    """Every regular file below the folder, as sorted relative paths; raises ValueError for a link or a special file."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path} is neither a file nor a folder: links and devices can't be stored")
        if path.is_file():
            found.append(path.relative_to(folder).as_posix())
    return sorted(found)
