"""Launchers of this machine: started through torchx's `local_cwd`, watched, stopped, and told as pods would be.

A launcher ends as a pod does: its exit code, and its last word in `termination.json`. One that failed leaves the others of its gang
to `reconcile`, as the Job controller does. After a kill -9 of `kompress run` the launchers of the attempt end by themselves
(`tether.py`); the next run waits for them and reads their last words.
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torchx.schedulers.local_scheduler import CWDImageProvider, LocalScheduler, Opts  # type: ignore[import-untyped]
from torchx.specs import AppDef, macros  # type: ignore[import-untyped]

from kompress_api import contract
from kompress_api.contract import StageSuccess, Termination
from kompress_api.reasons import Reason
from kompress_operator.launch.app import literal
from kompress_operator.launch.objects import GRACE_SECONDS
from kompress_operator.local.state import LauncherEnd, LocalAttempt
from kompress_operator.observed import ObservedAttempt, ObservedPod

TETHER = pathlib.Path(__file__).with_name("tether.py")
ALIVE = "alive"
TERMINATION = "termination.json"
_TERMINATION: TypeAdapter[Termination] = TypeAdapter(Termination)


class TetheredScheduler(LocalScheduler):  # type: ignore[misc]
    """torchx's `local_cwd`, whose processes are tied to this one."""

    def __init__(self) -> None:
        super().__init__("kompress", CWDImageProvider, cache_size=100_000, extra_paths=[str(pathlib.Path(sys.executable).parent)])
        self.processes: dict[pathlib.Path, subprocess.Popen[bytes]] = {}
        """By the folder of the launcher."""

    def run_local_job(self, args: list[str], env: dict[str, str], stdout: Any, stderr: Any, cwd: str | None = None) -> Any:
        """Called by torchx for each replica."""
        folder = pathlib.Path(env[contract.ENV_TERMINATION_LOG]).parent
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ALIVE).open("w") as alive:
            fcntl.flock(alive, fcntl.LOCK_EX)
            command = [sys.executable, "-I", str(TETHER), str(alive.fileno()), str(os.getpid()), *args]
            process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                start_new_session=True,
                pass_fds=[alive.fileno()],
            )
        self.processes[folder] = process
        return process


class Launchers:
    """All launchers of one local job. Copies of data sets lie in `cache`."""

    def __init__(self, folder: pathlib.Path, cache: pathlib.Path) -> None:
        self._folder, self._cache = folder, cache
        self._scheduler = TetheredScheduler()
        self._apps: dict[str, str] = {}
        self._told: set[tuple[str, int]] = set()

    def environment(self, attempt: str) -> dict[str, str]:
        """What a replica is told beyond what a pod is; with torchx's macros."""
        return {
            contract.ENV_TERMINATION_LOG: f"{literal(str(self._attempt_folder(attempt)))}/{macros.replica_id}/{TERMINATION}",
            contract.ENV_SCRATCH: literal(str(self._folder / "scratch")),
            contract.ENV_CACHE: literal(os.environ.get(contract.ENV_CACHE) or str(self._cache)),
            contract.ENV_CREDENTIALS: "",
        }

    def start(self, app: AppDef) -> None:
        """Starts every replica of an attempt."""
        options = Opts(log_dir=str(self._attempt_folder(app.name)), auto_set_cuda_visible_devices=True)
        self._apps[app.name] = self._scheduler.schedule(self._scheduler.submit_dryrun(app, options))

    def watch(self, attempt: LocalAttempt, now: float) -> bool:
        """Notes which launchers have ended; stops those of an attempt that is deleted. True when something has changed."""
        known = len(attempt.ends)
        for index in range(attempt.nodes):
            if index not in attempt.ends and not self._runs(attempt, index):
                attempt.ends[index] = LauncherEnd(now, self._exit_code(attempt, index))
        if self.ended(attempt):
            if app := self._apps.pop(attempt.name, None):
                self._scheduler.describe(app)  # torchx closes its log files
        elif attempt.deleting is not None:
            self.stop(attempt, kill=now > attempt.deleting + GRACE_SECONDS)
        return len(attempt.ends) != known

    def stop(self, attempt: LocalAttempt, *, kill: bool = False) -> None:
        """SIGTERM to the launchers, as the kubelet would send it; `kill` ends whatever they have started."""
        for index in range(attempt.nodes):
            pid = self._pid(attempt, index)
            if pid is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                if kill:
                    os.killpg(pid, signal.SIGKILL)
                elif (attempt.name, index) not in self._told:
                    self._told.add((attempt.name, index))
                    os.kill(pid, signal.SIGTERM)

    def ended(self, attempt: LocalAttempt) -> bool:
        """No launcher of it runs."""
        return len(attempt.ends) == attempt.nodes

    def observe(self, attempt: LocalAttempt) -> ObservedAttempt:
        """The attempt as `reconcile` looks at it."""
        ended = self.ended(attempt)
        codes = [end.exit_code for end in attempt.ends.values()]
        failed = any(code != 0 for code in codes)
        return ObservedAttempt(
            name=attempt.name,
            stage=attempt.stage,
            attempt=attempt.attempt,
            uid=attempt.uid,
            created=attempt.created,
            started=attempt.created,
            deleting=attempt.deleting,
            nodes=attempt.nodes,
            ready=attempt.nodes - len(attempt.ends),
            succeeded=sum(code == 0 for code in codes),
            failed_pods=sum(code != 0 for code in codes),
            complete=ended and not failed,
            failed=ended and failed,
            pods=tuple(self._pod(attempt, index) for index in range(attempt.nodes)) if ended or failed else None,
        )

    def log_file(self, attempt: str, index: int = 0) -> pathlib.Path | None:
        """Where a launcher and its workers wrote to."""
        return next(self._attempt_folder(attempt).glob(f"*/*/*/{index}/combined.log"), None)

    def events_file(self, attempt: str) -> pathlib.Path:
        """JSON lines of rank 0's worker, while it runs (`kompress_jobs/events.py`)."""
        return self._folder / "scratch" / f"{attempt}-0" / "events.jsonl"

    def close(self) -> None:
        """Ends what still runs."""
        self._scheduler.close()

    def _pod(self, attempt: LocalAttempt, index: int) -> ObservedPod:
        pod = ObservedPod(name=f"{attempt.name}-{index}", index=index, node="localhost")
        end = attempt.ends.get(index)
        if end is None:
            return pod
        pod = dataclasses.replace(pod, exit_code=end.exit_code, finished_at=end.time, termination=self._termination(attempt, index))
        return pod if end.exit_code is not None else dataclasses.replace(pod, disruption=Reason.NODE_LOST, disrupted_at=end.time)

    def _exit_code(self, attempt: LocalAttempt, index: int) -> int | None:
        process = self._scheduler.processes.get(self._launcher_folder(attempt, index))
        if process is not None:
            return process.returncode if process.returncode >= 0 else 128 - process.returncode
        said = self._termination(attempt, index)
        if said is None:
            return 0 if index and isinstance(self._termination(attempt, 0), StageSuccess) else None
        return 0 if isinstance(said, StageSuccess) else said.exit_code

    def _termination(self, attempt: LocalAttempt, index: int) -> Termination | None:
        try:
            return _TERMINATION.validate_json((self._launcher_folder(attempt, index) / TERMINATION).read_bytes())
        except (OSError, ValidationError):
            return None

    def _runs(self, attempt: LocalAttempt, index: int) -> bool:
        process = self._scheduler.processes.get(self._launcher_folder(attempt, index))
        return process.poll() is None if process is not None else _held(self._launcher_folder(attempt, index) / ALIVE)

    def _pid(self, attempt: LocalAttempt, index: int) -> int | None:
        """Of a launcher that lives, so that the number can't be another's."""
        if index in attempt.ends or not self._runs(attempt, index):
            return None
        process = self._scheduler.processes.get(self._launcher_folder(attempt, index))
        if process is not None:
            return process.pid
        text = (self._launcher_folder(attempt, index) / ALIVE).read_text()
        return int(text) if text else None

    def _attempt_folder(self, attempt: str) -> pathlib.Path:
        return self._folder / "attempts" / attempt

    def _launcher_folder(self, attempt: LocalAttempt, index: int) -> pathlib.Path:
        return self._attempt_folder(attempt.name) / str(index)


def _held(path: pathlib.Path) -> bool:
    """Whether another process holds the lock of a file."""
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def wait_for_orphans(launchers: Launchers, attempts: list[LocalAttempt], grace: float = GRACE_SECONDS) -> None:
    """Waits until launchers that an earlier `kompress run` left behind have saved a checkpoint and ended."""
    end = time.monotonic() + grace
    pending = [attempt for attempt in attempts if not launchers.ended(attempt)]
    while pending:
        for attempt in pending:
            launchers.stop(attempt, kill=time.monotonic() > end)
            launchers.watch(attempt, time.time())
        pending = [attempt for attempt in pending if not launchers.ended(attempt)]
        time.sleep(0.1 if pending else 0)
