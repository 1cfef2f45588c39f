"""What is remembered of a local job, in `${KOMPRESS_HOME:-./kompress-runs}/<name>/`.

`job.json` holds what a cluster keeps in the CompressionJob, its ControllerRevision and its Jobs; it is replaced in one step, so
that it is whole after a kill -9. `lock` keeps a second `kompress run` of the same job out.
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from kompress_api.errors import JobLocked, SpecCannotWork
from kompress_api.names import API_VERSION, KIND
from kompress_api.status import CompressionJobStatus
from kompress_operator.times import rfc3339

HOME_VARIABLE = "KOMPRESS_HOME"
CACHE = ".cache"
"""Beside the jobs: copies of their data sets (`kompress_jobs/storage/cache.py`)."""
JOB_FILE = "job.json"
LOCK_FILE = "lock"
EARLIER = "earlier"
"""Folder of the job.json of earlier runs under the same name."""


@dataclasses.dataclass
class LauncherEnd:
    """How a launcher ended."""

    time: float
    exit_code: int | None
    """None: it went away while nobody watched, and left no word."""


@dataclasses.dataclass
class LocalAttempt:
    """What stands for an attempt's Job."""

    name: str
    stage: str
    attempt: int
    uid: str
    created: float
    nodes: int
    deleting: float | None = None
    ends: dict[int, LauncherEnd] = dataclasses.field(default_factory=dict)
    """By index."""


@dataclasses.dataclass
class LocalJob:
    """One run of a manifest under a name."""

    name: str
    uid: str
    created: float
    spec: dict[str, Any]
    """As it stands in the manifest."""
    digest: str
    """Of the merged spec: another one is another run."""
    merged: dict[str, Any] | None = None
    status: CompressionJobStatus = dataclasses.field(default_factory=CompressionJobStatus)
    attempts: list[LocalAttempt] = dataclasses.field(default_factory=list)

    def manifest(self) -> dict[str, Any]:
        """The job with its status, as `kubectl get -o json` would show it."""
        metadata = {"name": self.name, "uid": self.uid, "creationTimestamp": rfc3339(self.created)}
        return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": self.spec, "status": self.status.dump()}


_ADAPTER: TypeAdapter[LocalJob] = TypeAdapter(LocalJob)


def home(environment: Mapping[str, str]) -> pathlib.Path:
    """Folder of all local jobs, absolute."""
    return pathlib.Path(environment.get(HOME_VARIABLE) or "kompress-runs").absolute()


def load(folder: pathlib.Path) -> LocalJob | None:
    """The job that was run here last; None where there is none.

    Raises:
        SpecCannotWork: job.json is not ours, or of another version.
    """
    path = folder / JOB_FILE
    if not path.exists():
        return None
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except ValueError as error:
        raise SpecCannotWork(f"{path} can't be read: {error}", hint=f"move {folder} away: finished stages in it are not lost") from error


def save(job: LocalJob, folder: pathlib.Path) -> None:
    """Replaces job.json in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{JOB_FILE}"
    with fresh.open("wb") as file:
        file.write(_ADAPTER.dump_json(job, indent=1, by_alias=True))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(folder / JOB_FILE)


def set_aside(job: LocalJob, folder: pathlib.Path) -> None:
    """Keeps the state of an earlier run."""
    earlier = folder / EARLIER
    earlier.mkdir(exist_ok=True)
    (folder / JOB_FILE).replace(earlier / f"{job.uid}.json")


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds the job's lock; raises JobLocked when someone else does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise JobLocked(
                f"{folder.name} is being run by process {file.read().strip() or 'unknown'}",
                hint=f"wait for it, or give the job another name ({folder})",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
