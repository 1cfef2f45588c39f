"""What the operator reports in `status`: phase, conditions, every stage with its attempts, goals, and a summary for `kubectl get`.

The largest possible status stays below 384 KiB (etcd's limit is 1.5 MiB a request), hence the caps on lists and texts.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from kompress_api.base import Model
from kompress_api.goals import GoalResult
from kompress_api.names import MAX_GOALS, MAX_RESTARTS, MAX_STAGES, StageName, Uri

MAX_ATTEMPTS = 11
"""The first attempt and the newest ten."""
MAX_MESSAGE = 1024
"""Bytes of the newest attempt's message."""
MAX_OLD_MESSAGE = 256
"""Bytes of an older attempt's message."""
MAX_FIGURES = 64
"""Figures of a stage."""

Time = Annotated[str, StringConstraints(max_length=40)]
"""RFC 3339, UTC."""
Message = Annotated[str, StringConstraints(max_length=MAX_MESSAGE)]
ReasonText = Annotated[str, StringConstraints(max_length=63)]
Figures = Annotated[dict[str, float], Field(max_length=MAX_FIGURES)]
Digest = Annotated[str, StringConstraints(max_length=80)]


class Phase(StrEnum):
    """Where the job stands, in one word."""

    PENDING = "Pending"
    PREFLIGHT = "Preflight"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    REPORTING = "Reporting"
    COMPLETE = "Complete"
    FAILED = "Failed"

    @property
    def finished(self) -> bool:
        """Nothing will run any more."""
        return self in (Phase.COMPLETE, Phase.FAILED)


class StageState(StrEnum):
    """Where a stage stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    BACKING_OFF = "BackingOff"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"

    @property
    def ended(self) -> bool:
        """It will not run any more."""
        return self in (StageState.SUCCEEDED, StageState.FAILED, StageState.SKIPPED)


ConditionType = Literal["Running", "Suspended", "Complete", "Failed"]


class Condition(Model):
    """As metav1.Condition."""

    type: ConditionType
    """What is said."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: ReasonText
    """Why, for machines."""
    message: Message = ""
    """Why, for people."""
    last_transition_time: Time
    """When `status` last changed."""
    observed_generation: int = 0
    """metadata.generation that this was said of."""


class Attempt(Model):
    """One start of a stage."""

    attempt: Annotated[int, Field(ge=1)]
    """Counts every start of this stage and never repeats."""
    started_at: Time
    """When its Job was created."""
    ended_at: Time | None = None
    """When its outcome was observed."""
    outcome: ReasonText = ""
    """Succeeded, or the reason that it ended for; empty while it runs."""
    spent_restart: bool = False
    """Whether its end was counted against spec.restartPolicy."""
    reuse: bool = False
    """Whether it only verified an artifact that was there (one small pod)."""
    rank: int | None = None
    """First failing rank, where one is known."""
    pod: Annotated[str, StringConstraints(max_length=63)] = ""
    """First failing pod."""
    node: Annotated[str, StringConstraints(max_length=253)] = ""
    """Node of the first failing pod."""
    exit_code: int | None = None
    """Exit code of the first failing container."""
    message: Message = ""
    """What went wrong and what to do."""
    checkpoint_step: int | None = None
    """Newest committed checkpoint that the attempt told of."""
    disruption: ReasonText = ""
    """Preempted, Evicted or NodeLost, seen of a pod while the attempt ran: the pod may be gone when the attempt ends."""
    failing_since: Time | None = None
    """When a pod was first seen to have failed while others still ran, which have some seconds to end and say why; gone when they have."""


class StageResult(Model):
    """What a stage made."""

    artifact: Uri
    """URI of the artifact's folder."""
    digest: Digest = ""
    """SHA-256 of the manifest."""
    key: Digest = ""
    """Stage key (content address)."""
    metrics: Figures = {}
    """Figures by name, finite."""
    mlflow_run_id: Annotated[str, StringConstraints(max_length=64)] = ""
    """Run of the attempt that made it (nested)."""
    reused: bool = False
    """Made by an earlier attempt or another job."""


class StageStatus(Model):
    """One stage."""

    name: StageName
    """As in spec.stages, or preflight, report."""
    state: StageState = StageState.PENDING
    """Where it stands."""
    attempts: Annotated[list[Attempt], Field(max_length=MAX_ATTEMPTS)] = []
    """The first and the newest ten."""
    attempts_cut: int = 0
    """Attempts left out of the list."""
    retry_at: Time | None = None
    """When the next attempt may start (BackingOff)."""
    spent_restarts: Annotated[list[int], Field(max_length=MAX_RESTARTS)] = []
    """When restarts were spent: seconds since the epoch less those that the job was suspended; older than the window are dropped."""
    result: StageResult | None = None
    """What it made."""


class Summary(Model):
    """For the columns of `kubectl get`."""

    stage: str = ""
    """Stages that run, or the one that failed."""
    attempt: int | None = None
    """Attempt of that stage."""
    progress: str = ""
    """Stages that ended of all, such as 2/4."""
    accuracy: float | None = None
    """Of the last stage listed."""
    wer: float | None = None
    """Of the last stage listed, in place of accuracy where speech is recognised."""
    smaller: float | None = None
    """Baseline's bytes over the model's."""
    faster: float | None = None
    """Baseline's p50 latency over the model's."""


class PlanStatus(Model):
    """What the preflight found."""

    uri: Uri
    """plan.json: full keys, fingerprints, the source's figures."""
    digest: Digest = ""
    """Its SHA-256."""
    keys: Annotated[dict[str, str], Field(max_length=MAX_STAGES)] = {}
    """First 16 hex digits of each stage's key."""
    hits: Annotated[dict[str, bool], Field(max_length=MAX_STAGES)] = {}
    """Which stages are already committed."""


class CompressionJobStatus(Model):
    """What became of the job so far."""

    model_config = {**Model.model_config, "extra": "ignore"}

    observed_generation: int = 0
    """metadata.generation that this status is about."""
    phase: Phase = Phase.PENDING
    """Where the job stands, in one word."""
    conditions: Annotated[list[Condition], Field(max_length=8)] = []
    """Running, Suspended, Complete, Failed: `kubectl wait --for=condition=Complete`."""
    spec_digest: Digest = ""
    """SHA-256 of the merged spec that runs, kept whole in a ControllerRevision."""
    revision: Annotated[str, StringConstraints(max_length=63)] = ""
    """Name of that ControllerRevision."""
    started_at: Time | None = None
    """When the first attempt was started."""
    finished_at: Time | None = None
    """When the phase became Complete or Failed."""
    suspended_at: Time | None = None
    """Since when the job is suspended."""
    suspended_seconds: float = 0.0
    """Time spent suspended before that; deadlines and windows stand still meanwhile."""
    stages: Annotated[list[StageStatus], Field(max_length=MAX_STAGES + 2)] = []
    """preflight, the user's stages, report."""
    plan: PlanStatus | None = None
    """What the preflight found."""
    goals: Annotated[list[GoalResult], Field(max_length=MAX_GOALS)] = []
    """What became of each goal."""
    restarts: int = 0
    """Restarts spent by the job."""
    mlflow_run_id: Annotated[str, StringConstraints(max_length=64)] = ""
    """Parent run."""
    mlflow_run_url: Annotated[str, StringConstraints(max_length=1400)] = ""
    """Its page."""
    summary: Summary = Summary()
    """For the columns of `kubectl get`."""

    def stage(self, name: str) -> StageStatus | None:
        """The entry of a stage, by name."""
        return next((entry for entry in self.stages if entry.name == name), None)
