"""What is known of one CompressionJob at one moment: all that `reconcile` may look at.

Plain frozen dataclasses without Kubernetes' words, so that pods of a cluster (`observe.py`) and processes of a laptop
(`local/`) fill in the same. An `Observed` goes to JSON and back unchanged: what a live operator saw can be replayed as a
case file. Times are seconds since the epoch.
"""

import dataclasses
from typing import Any, Literal

from pydantic import TypeAdapter

from kompress_api.contract import Termination
from kompress_api.reasons import Reason
from kompress_api.status import CompressionJobStatus

Disruption = Literal[Reason.PREEMPTED, Reason.EVICTED, Reason.NODE_LOST]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObservedJob:
    """The CompressionJob itself."""

    name: str
    namespace: str
    uid: str
    created: float
    spec: dict[str, Any]
    """As it stands in the manifest; it may be of a newer API."""
    generation: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObservedRuntime:
    """The ClusterCompressionRuntime that the job names; only looked at before the job has its merged spec."""

    name: str
    spec: dict[str, Any] | None = None
    """None: it was not found, or may not be read."""
    refused: str = ""
    """Why it may not be read; empty where it is merely absent."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObservedPod:
    """One pod of an attempt (locally: one launcher process)."""

    name: str
    index: int
    """Completion index."""
    node: str = ""
    scheduled: bool = True
    started: bool = True
    """Its container runs, or has run."""
    waiting: str = ""
    """Why it has not started (ImagePullBackOff, Unschedulable, CreateContainerConfigError, ...); empty: not known."""
    waiting_message: str = ""
    """The same for people."""
    disruption: Disruption | None = None
    """It was, or is being, removed for a reason outside of the job."""
    disrupted_at: float | None = None
    """When that began."""
    delete_by: float | None = None
    """It is being deleted and should be gone by then."""
    exit_code: int | None = None
    """None while its container has not ended, or ended without one (node lost). 0 is known before the pod itself has `ended`."""
    oom: bool = False
    """The container was killed for its memory."""
    finished_at: float | None = None
    """When it ended, to the second."""
    termination: Termination | None = None
    """What its launcher said at the end."""
    last_words: str = ""
    """The end of its log, where its launcher could say nothing."""

    @property
    def ended(self) -> bool:
        """Nothing of it runs any more."""
        return self.finished_at is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObservedAttempt:
    """A stage attempt that exists: a Job on a cluster, a launched app on a laptop."""

    name: str
    stage: str
    attempt: int
    uid: str
    created: float
    started: float | None = None
    """Since when its pods may run (not before a queue admits it); None: they may not yet."""
    queued: bool = False
    """A queue (Kueue) holds it back."""
    deleting: float | None = None
    """Since when it is being deleted."""
    nodes: int = 1
    """Pods that it needs."""
    ready: int = 0
    """Pods that run."""
    succeeded: int = 0
    failed_pods: int = 0
    terminating: int = 0
    complete: bool = False
    """All its pods succeeded."""
    failed: bool = False
    """It failed, and all its pods have ended. One of them having failed (`failed_pods`) leaves the others running."""
    message: str = ""
    """What its controller says about the failure."""
    pods: tuple[ObservedPod, ...] | None = None
    """None: nobody looked, as the attempt waits in a queue, or has ended with its outcome recorded."""

    @property
    def ended(self) -> bool:
        """No container of it runs."""
        return self.done or self.failed

    @property
    def done(self) -> bool:
        """All its containers ended well: known up to two seconds before the Job's controller and the kubelet have called it complete."""
        return self.complete or len({pod.index for pod in self.pods or () if pod.exit_code == 0}) >= self.nodes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Something in the way of an action: an object of that name, or a refusal of the API server."""

    kind: str
    """Kind of the object that could not be made."""
    name: str
    reason: Literal[Reason.NAME_TAKEN, Reason.CREATE_REFUSED]
    message: str
    passing: bool
    """It may go away by itself (an object that is being deleted, a quota): wait. Otherwise the job fails."""
    stage: str = ""
    """Whose attempt it was; empty for the job's own objects."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything about one CompressionJob."""

    job: ObservedJob
    status: CompressionJobStatus = dataclasses.field(default_factory=CompressionJobStatus)
    runtime: ObservedRuntime | None = None
    """None: not looked at, because `merged` is known."""
    merged: dict[str, Any] | None = None
    """The merged spec that runs, from the job's ControllerRevision (locally: its state folder); None before the start."""
    attempts: tuple[ObservedAttempt, ...] = ()
    """Those that exist and belong to this job (by owner UID)."""
    service: bool = False
    """The headless Service exists (locally: always)."""
    obstacles: tuple[Obstacle, ...] = ()
    local_files: bool = False
    """`file://` places are seen by every attempt (a laptop). On a cluster a volume must cover them."""

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        return _ADAPTER.dump_python(self, mode="json", by_alias=True)  # type: ignore[no-any-return]

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Observed":
        """The inverse of `to_json`; pydantic's ValidationError where `data` is none."""
        return _ADAPTER.validate_python(data)


_ADAPTER: TypeAdapter[Observed] = TypeAdapter(Observed)
