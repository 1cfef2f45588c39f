"""Daemons of one cluster, each recorded by pid and start time, so that no other process can ever be hit.

A daemon leads its own session and carries the cluster's folder in its environment: children that outlive it (MLflow's server is a
child of its command line) are found by both.
"""

import contextlib
import ctypes
import fcntl
import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

MARK = "KOMPRESS_TESTCLUSTER_FOLDER"
PR_SET_PDEATHSIG = 1


class ClusterError(Exception):
    """Something that the user of the test cluster can act on; its text says what to do."""


def identity(pid: int) -> str | None:
    """`pid start-time`, which no later process ever repeats; None when there is no such process.

    A zombie counts as none, once its last thread is gone: while others still end, their process holds its ports.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, threads, started = fields[0], int(fields[17]), fields[19]
    return None if state in "ZX" and threads <= 1 else f"{pid} {started}"


def is_alive(recorded: str) -> bool:
    """Whether the process with this `identity` still runs."""
    return identity(int(recorded.split(maxsplit=1)[0])) == recorded


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time, of all that share this folder: the workers of one test run start and end their clusters at once."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Processes:
    """The daemons of the cluster in `folder`; their output goes to `folder`/log/NAME.log."""

    def __init__(self, folder: Path, *, die_with_parent: bool = False) -> None:
        """`die_with_parent`: daemons end when the thread that started them does, even by `kill -9`."""
        self.folder = folder
        self.log = folder / "log"
        self.records = folder / "processes"
        self.die_with_parent = die_with_parent

    def names(self) -> list[str]:
        return sorted(path.name for path in self.records.iterdir()) if self.records.exists() else []

    def pid_of(self, name: str) -> int | None:
        """The pid of a daemon that runs, else None."""
        try:
            recorded = (self.records / name).read_text()
        except FileNotFoundError:
            return None
        return int(recorded.split()[0]) if is_alive(recorded) else None

    def start(
        self,
        name: str,
        *command: object,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Starts a daemon unless it runs. `prepare` is called in the child, before it becomes the program; `death_signal` is what
        it gets from `die_with_parent`.
        """
        if self.pid_of(name):
            return
        self.records.mkdir(parents=True, exist_ok=True)
        self.log.mkdir(parents=True, exist_ok=True)
        libc = ctypes.CDLL(None, use_errno=True)

        def before_exec() -> None:
            if self.die_with_parent:
                libc.prctl(PR_SET_PDEATHSIG, death_signal)
            if prepare:
                prepare()

        with (self.log / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {}), MARK: str(self.folder)},
                start_new_session=True,
                preexec_fn=before_exec,  # noqa: PLW1509 - nothing here runs in threads
            )
        (self.records / name).write_text(identity(child.pid) or f"{child.pid} ended")

    def kill(self, *names: str) -> None:
        """Ends daemons and what they left behind in their sessions; returns when all are gone."""
        for name in names:
            for member in self.members(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
        for name in names:
            self.wait(functools.partial(self._is_gone, name), f"{name} to end", 20)
            (self.records / name).unlink(missing_ok=True)

    def members(self, name: str) -> set[int]:
        """The pids of a daemon and of those in its session that carry our mark; of another user's there are none to see."""
        try:
            leader = int((self.records / name).read_text().split(maxsplit=1)[0])
        except FileNotFoundError:
            return set()
        ours = {pid for pid in self.marked() if _session_of(pid) == leader}
        return ours | ({leader} if self.pid_of(name) else set())

    def marked(self) -> Iterator[int]:
        """Every process that carries our mark: daemons, and what they started and did not wait for."""
        mark = f"{MARK}={self.folder}".encode()
        for path in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(path.name)
                if mark in (path / "environ").read_bytes().split(b"\0") and identity(pid):
                    yield pid

    def _is_gone(self, name: str) -> bool:
        return not self.members(name)

    def wait(self, ready: Callable[[], object], what: str, seconds: float, *, alive: str = "") -> None:
        """Polls until `ready`; gives up early when the daemon `alive` is gone.

        Raises:
            ClusterError: with the last lines of the daemon's log.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if alive and not self.pid_of(alive):
                raise ClusterError(f"{alive} ended while {what} was awaited; {self.tail(alive)}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{what}: still waiting after {seconds:.0f} s; logs are in {self.log}")
            time.sleep(0.05)

    def tail(self, name: str, lines: int = 15) -> str:
        log = self.log / f"{name}.log"
        return f"last lines of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def memory_mib(pid: int) -> int:
    """Resident memory of one process."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    except (FileNotFoundError, ProcessLookupError):
        return 0
