"""What policies are asked about: what was observed, and the status brought up to date with it.

`take_stock` reads the spec (or the merged spec that runs), keeps the clock that stands still while the job is suspended,
and lists the stages. It judges nothing.
"""

import dataclasses

from pydantic import ValidationError

from kompress_api.dag import depends_on
from kompress_api.errors import KompressError
from kompress_api.job import CompressionJobSpec
from kompress_api.merge import MergedSpec, merge, refuse_uncovered_files
from kompress_api.names import DEFAULT_RUNTIME, PREFLIGHT, REPORT
from kompress_api.reasons import Reason
from kompress_api.runtime import ClusterCompressionRuntimeSpec
from kompress_api.stages.stage import Stage
from kompress_api.status import Attempt, CompressionJobStatus, Condition, StageState, StageStatus
from kompress_operator.observed import Observed, ObservedAttempt
from kompress_operator.times import epoch, rfc3339

GRACE_SECONDS = 30.0
"""How long after its own grace period a pod may take to end before its node is taken for lost."""


@dataclasses.dataclass(frozen=True)
class Trouble:
    """Why the job fails, or can't be started: a typed reason and a message for people."""

    reason: str
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """One job at one moment. Immutable: `with_...` gives another."""

    observed: Observed
    status: CompressionJobStatus
    spec: CompressionJobSpec | None
    """The job's own spec; None where it does not fit this operator's API, and where `merged` says it all."""
    merged: MergedSpec | None
    """The spec that runs, or that would run if the job were started now."""
    trouble: Trouble | None = None
    """Why there is no merged spec."""
    failure: Trouble | None = None
    """Why the job fails, once that is decided."""

    @property
    def suspended(self) -> bool:
        """Whether the user wants it to stand still (read live)."""
        return self.observed.job.spec.get("suspend") is True

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The user's stages, in the order of the manifest."""
        spec = self.merged or self.spec
        return tuple(spec.stages) if spec is not None else ()

    @property
    def user_entries(self) -> tuple[StageStatus, ...]:
        """The user's stages' status."""
        return tuple(entry for entry in self.status.stages if entry.name not in (PREFLIGHT, REPORT))

    @property
    def preflight_succeeded(self) -> bool:
        """Whether the plan was found to work."""
        return self.state(PREFLIGHT) is StageState.SUCCEEDED

    @property
    def stages_ended(self) -> bool:
        """None of the user's stages will run any more."""
        return bool(self.user_entries) and all(entry.state.ended for entry in self.user_entries)

    def entry(self, name: str) -> StageStatus:
        """A stage's status; KeyError where there is none."""
        found = self.status.stage(name)
        if found is None:
            raise KeyError(name)
        return found

    def state(self, name: str) -> StageState:
        """A stage's state; Pending where nothing is known of it."""
        found = self.status.stage(name)
        return found.state if found is not None else StageState.PENDING

    def dependencies(self, name: str) -> frozenset[str]:
        """The stages that must have succeeded before this one starts."""
        spec = self.merged or self.spec
        assert spec is not None
        return depends_on(spec, next(stage for stage in spec.stages if stage.name == name))

    def jobs_of(self, stage: str) -> tuple[ObservedAttempt, ...]:
        """A stage's attempts that exist, by number."""
        return tuple(sorted((a for a in self.observed.attempts if a.stage == stage), key=lambda a: a.attempt))

    def occupied(self, stage: str, now: float) -> bool:
        """Whether pods of an attempt of this stage still run, or may."""
        return any(not job.ended and not stuck(job, now) for job in self.jobs_of(stage))

    def clock(self, now: float) -> float:
        """`now` less the time that the job was suspended: deadlines and windows are told by it."""
        standing = now - epoch(self.status.suspended_at) if self.status.suspended_at is not None else 0.0
        return now - self.status.suspended_seconds - standing

    def with_status(self, **fields: object) -> "View":
        """Another view with these fields of the status changed."""
        return dataclasses.replace(self, status=self.status.model_copy(update=fields))

    def with_entry(self, entry: StageStatus) -> "View":
        """Another view with this stage's status changed."""
        return self.with_status(stages=[entry if other.name == entry.name else other for other in self.status.stages])

    def condition(self, kind: str) -> Condition | None:
        """A condition, by type."""
        return next((entry for entry in self.status.conditions if entry.type == kind), None)


def newest(entry: StageStatus) -> Attempt | None:
    """A stage's last attempt."""
    return entry.attempts[-1] if entry.attempts else None


def overdue(delete_by: float | None, now: float) -> bool:
    """Whether something that is being deleted should have been gone for long: nobody is left to end it."""
    return delete_by is not None and now >= delete_by + GRACE_SECONDS


def stuck(job: ObservedAttempt, now: float) -> bool:
    """Whether an attempt that is being deleted only waits for pods of lost nodes."""
    running = [pod for pod in job.pods or () if not pod.ended]
    return job.deleting is not None and bool(running) and all(overdue(pod.delete_by, now) for pod in running)


def take_stock(observed: Observed, now: float) -> View:
    """The view before any attempt is judged."""
    spec, merged, trouble = _spec_that_runs(observed)
    view = View(observed=observed, status=observed.status, spec=spec, merged=merged, trouble=trouble)
    failed = view.condition("Failed")
    if failed is not None:
        view = dataclasses.replace(view, failure=Trouble(failed.reason, failed.message))
    if view.status.phase.finished:
        return view
    if view.stages and not view.status.stages:
        names = (PREFLIGHT, *(stage.name for stage in view.stages), REPORT)
        view = view.with_status(stages=[StageStatus(name=name) for name in names])
    return _keep_clock(view, now)


def _keep_clock(view: View, now: float) -> View:
    since = view.status.suspended_at
    if view.suspended and since is None:
        return view.with_status(suspended_at=rfc3339(now))
    if not view.suspended and since is not None:
        total = view.status.suspended_seconds + max(0.0, now - epoch(since)) if view.status.started_at is not None else 0.0
        return view.with_status(suspended_at=None, suspended_seconds=float(round(total)))
    return view


def _spec_that_runs(observed: Observed) -> tuple[CompressionJobSpec | None, MergedSpec | None, Trouble | None]:
    try:
        if observed.merged is not None:
            return None, MergedSpec.model_validate(observed.merged), None
        spec = CompressionJobSpec.model_validate(observed.job.spec)
    except ValidationError as error:
        return None, None, Trouble(Reason.INVALID_SPEC, describe(error))
    if observed.status.phase.finished:
        return spec, None, None
    runtime = observed.runtime
    named = spec.runtime_ref.name
    if named != DEFAULT_RUNTIME and (runtime is None or runtime.spec is None):
        why = runtime.refused if runtime is not None and runtime.refused else "there is none of that name"
        return spec, None, Trouble(Reason.RUNTIME_NOT_FOUND, f"spec.runtimeRef.name: ClusterCompressionRuntime {named!r}: {why}")
    try:
        platform = runtime.spec if runtime is not None and runtime.spec is not None else {}
        merged = merge(spec, ClusterCompressionRuntimeSpec.model_validate(platform))
        if not observed.local_files:
            refuse_uncovered_files(merged)
    except ValidationError as error:
        return spec, None, Trouble(Reason.INVALID_SPEC, f"merged with ClusterCompressionRuntime {named!r}: {describe(error)}")
    except KompressError as error:
        known = error.reason in Reason.__members__.values()
        hint = f" ({error.hint})" if error.hint else ""
        return spec, None, Trouble(error.reason if known else Reason.INVALID_SPEC, f"{error}{hint}")
    return spec, merged, None


def describe(error: ValidationError) -> str:
    """The first problems of a spec, each by its path."""
    problems = []
    for problem in error.errors(include_url=False)[:3]:
        path = "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
        problems.append(f"{path}: {problem['msg']}")
    return "; ".join(problems)
