"""The operator of one job on one machine: observe its launchers, ask `reconcile`, do what it says, remember.

The same decisions as on a cluster, in the same order; only the pods are processes. One stage runs at a time. Ctrl-C is a
suspension: running stages save a checkpoint, the state says so, and the next run of the same manifest goes on from there.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator

from torchx.specs import AppDef, Resource, Role  # type: ignore[import-untyped]

from kompress_api.contract import JobIdentity
from kompress_api.errors import KompressError
from kompress_api.job import CompressionJobSpec
from kompress_api.merge import MergedSpec, merge, spec_digest
from kompress_api.names import PREFLIGHT, attempt_name
from kompress_api.reasons import Reason
from kompress_api.status import CompressionJobStatus, Phase
from kompress_operator.actions import Action, CreateAttempt, CreateRevision, DeleteAttempt
from kompress_operator.launch.app import build_app
from kompress_operator.launch.inputs import build_input
from kompress_operator.local import state
from kompress_operator.local.defaults import local_runtime
from kompress_operator.local.launchers import Launchers, wait_for_orphans
from kompress_operator.local.state import LocalAttempt, LocalJob
from kompress_operator.local.tail import Event, Tail
from kompress_operator.observed import Observed, ObservedJob, ObservedRuntime, Obstacle
from kompress_operator.reconcile import reconcile

POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Update:
    """What a person may want to see now."""

    status: CompressionJobStatus
    events: tuple[tuple[str, Event], ...] = ()
    """Stage and event, as its worker told."""


Watcher = Callable[[Update], None]


def merged_locally(spec: CompressionJobSpec, folder: pathlib.Path) -> MergedSpec:
    """The spec that runs here. Raises SpecTooLarge."""
    return merge(spec.model_copy(update={"max_parallel_stages": 1}), local_runtime(folder))


def take_up(name: str, spec: CompressionJobSpec, folder: pathlib.Path, now: float) -> LocalJob:
    """The job that stands in the folder where its merged spec is the same; else, or where it failed, a new one.

    A goal that was missed is a result like any other. What failed is tried anew: whoever runs it again has mended something,
    and stages that had finished are found by their keys.
    """
    digest = spec_digest(merged_locally(spec, folder))
    raw = spec.dump()
    job = state.load(folder)
    if job is not None and job.digest == digest and (job.status.phase is not Phase.FAILED or goal_missed(job.status)):
        job.spec = raw
        return job
    if job is not None:
        state.set_aside(job, folder)
    return LocalJob(name=name, uid=str(uuid.uuid4()), created=now, spec=raw, digest=digest)


def goal_missed(status: CompressionJobStatus) -> bool:
    """All stages succeeded, and a goal was not met."""
    failed = next((entry for entry in status.conditions if entry.type == "Failed"), None)
    return failed is not None and failed.reason in ("GoalMissed", "NoSpeedup")


class LocalBackend:
    """Runs one job to its end, or to an interruption. The caller holds the job's lock."""

    def __init__(self, job: LocalJob, folder: pathlib.Path, *, only_preflight: bool = False) -> None:
        self.job = job
        self.folder = folder
        cache = folder.parent / state.CACHE
        self.launchers = Launchers(folder / job.uid, cache)  # another run under this name makes attempts of the same names
        self.interrupts = 0
        """Requests to stop: the first is graceful, the second is not."""
        self.only_preflight = only_preflight
        """Stand still as soon as the plan was found to work."""
        self._tails: dict[str, Tail] = {}
        self._obstacles: list[Obstacle] = []
        self._runtime = ObservedRuntime(
            name=CompressionJobSpec.model_validate(job.spec).runtime_ref.name, spec=local_runtime(folder).dump()
        )

    @property
    def status(self) -> CompressionJobStatus:
        """As far as it is known."""
        return self.job.status

    def run(self, watcher: Watcher = lambda _: None) -> None:
        """Returns when nothing runs any more: the job has finished, is suspended, or was interrupted."""
        wait_for_orphans(self.launchers, self.job.attempts)
        observed, wake = None, 0.0
        while True:
            now = time.time()
            for attempt in self.job.attempts:
                self.launchers.watch(attempt, now)
            before, observed = observed, self._observe()
            if observed != before or now >= wake:
                wake = self._reconcile(observed, now)
            watcher(Update(self.status, tuple(self._events())))
            if self._at_rest():
                return
            if self.interrupts > 1:
                self._kill()
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Ends what still runs."""
        self.launchers.close()

    def _reconcile(self, observed: Observed, now: float) -> float:
        """One pass; returns when the next one is due. What is decided is remembered before it is done."""
        decision = reconcile(observed, now)
        changed = bool(decision.actions) or decision.status != self.job.status
        self.job.status = decision.status
        apps = [app for action in decision.actions for app in self._remember(action, now)]
        if changed:
            state.save(self.job, self.folder)
        for stage, app in apps:
            self.launchers.start(app)
            self._tails[stage] = Tail(self.launchers.events_file(app.name))
        if changed:
            return now
        return now + decision.requeue_after if decision.requeue_after is not None else math.inf

    def _remember(self, action: Action, now: float) -> Iterator[tuple[str, AppDef]]:
        """Takes down what was decided; gives the stage and app that is to be started."""
        if isinstance(action, CreateRevision):
            self.job.merged = action.data
        elif isinstance(action, DeleteAttempt):
            for attempt in [entry for entry in self.job.attempts if entry.uid == action.uid]:
                attempt.deleting = now
        elif isinstance(action, CreateAttempt):
            try:
                app = self._app(action)
            except KompressError as error:
                name = attempt_name(self.job.name, action.stage, action.attempt)
                refused = Obstacle(
                    kind="Job", name=name, reason=Reason.CREATE_REFUSED, message=str(error), passing=False, stage=action.stage
                )
                self._obstacles.append(refused)
                return
            uid = str(uuid.uuid4())
            self.job.attempts.append(LocalAttempt(app.name, action.stage, action.attempt, uid, now, app.roles[0].num_replicas))
            yield action.stage, app

    def _app(self, action: CreateAttempt) -> AppDef:
        merged = MergedSpec.model_validate(self.job.merged)
        job = JobIdentity(name=self.job.name, uid=self.job.uid)
        stage_input = build_input(job, merged, self.job.status, action.stage, action.attempt, reuse=action.reuse)
        environment = self.launchers.environment(attempt_name(self.job.name, action.stage, action.attempt))
        app = build_app(merged, stage_input, master=f"localhost:{free_port()}", environment=environment)
        (worker,) = app.roles
        _share_machine(worker)
        return app

    def _observe(self) -> Observed:
        job = self.job
        job.attempts = [entry for entry in job.attempts if entry.deleting is None or not self.launchers.ended(entry)]
        return Observed(
            job=ObservedJob(
                name=job.name,
                namespace="",
                uid=job.uid,
                created=job.created,
                spec={**job.spec, "maxParallelStages": 1, "suspend": self._suspended()},
            ),
            status=job.status,
            runtime=self._runtime,
            merged=job.merged,
            attempts=tuple(self.launchers.observe(entry) for entry in job.attempts),
            service=True,
            obstacles=tuple(self._obstacles),
            local_files=True,
        )

    def _suspended(self) -> bool:
        """Ctrl-C and a finished plan are suspensions that the manifest does not know of."""
        planned = self.only_preflight and any(
            entry.stage == PREFLIGHT and [end.exit_code for end in entry.ends.values()] == [0] for entry in self.job.attempts
        )
        return bool(self.interrupts) or planned or bool(self.job.spec.get("suspend"))

    def _at_rest(self) -> bool:
        """Nothing runs, and nothing will."""
        if not all(self.launchers.ended(entry) for entry in self.job.attempts):
            return False
        return self.status.phase.finished or self.status.phase is Phase.SUSPENDED

    def _events(self) -> Iterator[tuple[str, Event]]:
        for stage, tail in self._tails.items():
            yield from ((stage, event) for event in tail.read())

    def _kill(self) -> None:
        for attempt in self.job.attempts:
            self.launchers.stop(attempt, kill=True)


@contextlib.contextmanager
def interruptible(backend: LocalBackend, tell: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask the backend to stop; a second one stops it at once."""

    def interrupt(*_: object) -> None:
        backend.interrupts += 1
        tell("stopping: running stages save a checkpoint; once more stops at once" if backend.interrupts == 1 else "stopping at once")

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _share_machine(worker: Role) -> None:
    """Several launchers on one machine: each would take all its cores and GPUs for its own."""
    share = gpus() // worker.num_replicas if worker.num_replicas > 1 else 0
    worker.resource = Resource(cpu=0, gpu=share, memMB=0)  # torchx numbers the devices of each replica
    if worker.num_replicas > 1:
        if not share:
            worker.env["CUDA_VISIBLE_DEVICES"] = ""
        if "OMP_NUM_THREADS" not in os.environ:
            worker.env["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // worker.num_replicas))


def gpus(devices: pathlib.Path = pathlib.Path("/dev")) -> int:
    """NVIDIA devices of this machine."""
    return sum(path.name.removeprefix("nvidia").isdecimal() for path in devices.glob("nvidia*"))


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])
