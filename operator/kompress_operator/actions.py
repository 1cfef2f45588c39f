"""What `reconcile` may ask for. Frozen dataclasses compared by value; `act.py` and the local backend carry them out.

Every action can be repeated without harm: a create that finds the job's own object is done, a delete of what is gone too.
"""

import dataclasses
from typing import Any

from kompress_api.status import CompressionJobStatus


@dataclasses.dataclass(frozen=True)
class CreateRevision:
    """Keep the merged spec. Finding another one of this job there means that `observed` was stale: observe again."""

    name: str
    digest: str
    data: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class CreateService:
    """The headless Service of the job."""

    name: str


@dataclasses.dataclass(frozen=True)
class CreateAttempt:
    """Start a stage."""

    stage: str
    attempt: int
    reuse: bool = False
    """One small pod that only verifies what is there."""
    ready_at: float = dataclasses.field(default=0.0, compare=False)
    """Since when nothing held the stage back; for the metric only."""


@dataclasses.dataclass(frozen=True)
class DeleteAttempt:
    """Stop an attempt (its processes get SIGTERM and their grace) or remove one that ended."""

    name: str
    uid: str
    """The delete's precondition: never another object of the same name."""
    why: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class DeleteService:
    """Remove the headless Service."""

    name: str


Action = CreateRevision | CreateService | CreateAttempt | DeleteAttempt | DeleteService


@dataclasses.dataclass(frozen=True)
class Decision:
    """What `reconcile` says: do `actions` in order, then write `status` (where it differs), then come back.

    `requeue_after` is in seconds; None: only when something changes.
    """

    status: CompressionJobStatus
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
