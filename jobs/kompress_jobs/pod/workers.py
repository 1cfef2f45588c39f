"""This pod's part of a gang: torchrun's elastic agent, its worker processes, and how each of them ended.

The agent does the rendezvous and the process group's addresses; a gang is never restarted here (`max_restarts` 0), as a
restart is a new attempt and the operator's. A fixed gang meets by `static` rendezvous at pod 0, so that ranks follow
the pods' indexes; an elastic one by c10d, also hosted by pod 0. A single process has nobody to meet: it is started as it is, as
the agent's own imports take longer than a preflight, a report or a reused stage has to do.

The agent runs in a thread: a rendezvous waits inside of C++ code, where the main thread would not see a signal.
"""

import contextlib
import dataclasses
import importlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from kompress_jobs.pod.environment import Pod

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.rendezvous import RendezvousHandler

log = logging.getLogger(__name__)

RENDEZVOUS_SECONDS = 900
"""How long pods wait for each other; the operator's start deadline is usually shorter."""
POLL_SECONDS = 0.1


class PeerNotFound(Exception):
    """Rank 0's name did not resolve in time."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """A worker process that ended badly."""

    rank: int
    exit_code: int
    """As subprocess tells it: negative for a signal."""
    time_us: int
    """When it ended, microseconds since the epoch."""


class Workers:
    """Start with `start`, ask to end with `stop`; `finished` is set when no worker runs any more."""

    def __init__(self, pod: Pod, processes: int, worker: list[str]) -> None:
        self._pod = pod
        self._processes = processes
        self._worker = worker
        self._alone = pod.max_nodes == 1 and processes == 1
        self._agent: LocalElasticAgent | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths: dict[int, int] = {}
        self._stop = threading.Event()
        self.started = threading.Event()
        """Worker processes are there."""
        self.finished = threading.Event()
        self.error: Exception | None = None
        """Why the gang could not start, or the agent failed."""
        self.ended: list[Ended] = []
        """Workers of this pod that ended badly, the first one first."""

    def start(self) -> None:
        """Begin the rendezvous; returns as soon as the agent is imported, so that nothing else competes with that for the interpreter."""
        if not self._alone:
            importlib.import_module("torch.distributed.elastic.agent.server.local_elastic_agent")
        threading.Thread(target=self._run, name="agent", daemon=True).start()

    def stop(self) -> None:
        """SIGTERM for the workers, now or as soon as they exist: they checkpoint and end."""
        self._stop.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL for the workers."""
        self._signal(signal.SIGKILL)

    def _run(self) -> None:
        try:
            self.ended = self._run_alone() if self._alone else self._run_gang()
        except Exception as error:
            log.exception("the elastic agent failed" if not self._alone else "the worker could not be started")
            self.error = error
        finally:
            self.finished.set()

    def _run_alone(self) -> list[Ended]:
        ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        self._process = subprocess.Popen([sys.executable, *self._worker], env=os.environ | ranks)
        self.started.set()
        if self._stop.is_set():
            self._signal(signal.SIGTERM)
        code = self._process.wait()
        return [Ended(0, code, time.time_ns() // 1000)] if code else []

    def _run_gang(self) -> list[Ended]:
        if self._pod.max_nodes > 1:
            log.info("waiting for rank 0 at %s", self._pod.master_host)
            wait_for_name(self._pod.master_host, RENDEZVOUS_SECONDS)
        self._agent = build_agent(self._pod, self._processes, self._worker)
        watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        watcher.start()
        failures = _failures(self._agent.run())
        watcher.join(timeout=1)
        now = time.time_ns() // 1000
        ended = [Ended(rank, failure.exitcode, self._deaths.get(failure.pid, now)) for rank, failure in failures.items()]
        return sorted(ended, key=lambda end: end.time_us)

    def _watch(self) -> None:
        """Note the moment of each worker's death: the agent only polls, and stops the others before it tells of the first."""
        while not (pids := self._pids()):
            if self.finished.wait(POLL_SECONDS):
                return
        self.started.set()
        if self._stop.is_set():
            self._signal(signal.SIGTERM)
        if not hasattr(os, "pidfd_open"):
            return
        waiting: dict[int, int] = {}
        for pid in pids:
            try:
                waiting[os.pidfd_open(pid)] = pid
            except ProcessLookupError:
                self._deaths[pid] = time.time_ns() // 1000
        while waiting:
            for descriptor in select.select(list(waiting), [], [])[0]:
                self._deaths[waiting.pop(descriptor)] = time.time_ns() // 1000
                os.close(descriptor)

    def _pids(self) -> list[int]:
        if self._alone:
            return [self._process.pid] if self._process and self._process.poll() is None else []
        workers = self._agent.get_worker_group().workers if self._agent else []
        return [worker.id for worker in workers] if workers and all(worker.id for worker in workers) else []

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids():
            if pid not in self._deaths:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


def wait_for_name(host: str, seconds: float) -> None:
    """Returns when the name resolves: a headless Service's records come some time after its pods. Raises PeerNotFound."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.getaddrinfo(host, None)
            return
        except socket.gaierror as error:
            if time.monotonic() > deadline:
                raise PeerNotFound(f"{host}, where rank 0 should be, did not resolve within {seconds:.0f} s: {error}") from error
            time.sleep(0.5)


def build_agent(pod: Pod, processes: int, worker: list[str]) -> "LocalElasticAgent":
    """torchrun's agent for this pod: `worker` is the arguments of the Python that each process runs."""
    from torch.distributed.elastic.agent.server.api import WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

    logging.getLogger("torch.distributed.elastic.multiprocessing.api").addFilter(_not_about_signals)
    fixed = not pod.elastic and pod.max_nodes > 1
    spec = WorkerSpec(
        role="worker",
        local_world_size=processes,
        entrypoint=sys.executable,
        args=tuple(worker),
        rdzv_handler=_rendezvous(pod),
        max_restarts=0,
        monitor_interval=POLL_SECONDS,
        master_addr=pod.master_host if fixed else None,
        master_port=pod.master_port if fixed else None,
        local_addr=None if pod.max_nodes > 1 else "localhost",
    )
    return LocalElasticAgent(spec, DefaultLogsSpecs(log_dir=os.devnull))


def _rendezvous(pod: Pod) -> "RendezvousHandler":
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    run_id = f"{pod.input.job.uid}-{pod.input.name}-{pod.input.attempt}"
    settings: dict[str, Any] = {"timeout": RENDEZVOUS_SECONDS}
    if pod.max_nodes == 1:
        backend, endpoint = "c10d", "localhost:0"
        settings["is_host"] = True
    else:
        backend, endpoint = "c10d" if pod.elastic else "static", f"{pod.master_host}:{pod.master_port}"
        settings |= {"is_host": pod.index == 0} if pod.elastic else {"rank": pod.index}
    return get_rendezvous_handler(RendezvousParameters(backend, endpoint, run_id, pod.min_nodes, pod.max_nodes, **settings))


def _failures(result: Any) -> dict[int, Any]:
    return dict(result.failures) if result is not None and result.is_failed() else {}


def _not_about_signals(line: logging.LogRecord) -> bool:
    """The launcher's main thread handles the signals; the agent warns that it does not."""
    return "signal handlers" not in line.getMessage()
