"""The two types of policy, and what each may say. A policy decides, it never acts (jobset's TTL policy deletes by itself).

A job policy looks at one job and says what its course is, or nothing. An attempt policy looks at one attempt that is
recorded as running and says how it ended, or nothing.
"""

import dataclasses
import enum
from collections.abc import Callable

from kompress_api.contract import StageSuccess
from kompress_api.status import Attempt, StageStatus
from kompress_operator.observed import ObservedAttempt
from kompress_operator.view import View


class Course(enum.Enum):
    """What a verdict asks for."""

    REST = "the job has ended"
    CLEAN_UP = "the job has ended, and what it left is removed"
    FAIL = "the job fails: what runs is stopped; then the later policies are asked"
    END = "the job ends now"
    SUSPEND = "what runs is stopped and goes on later"
    WAIT = "nothing is started"
    START = "stages are started"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a job policy says."""

    course: Course
    reason: str
    message: str = ""
    starts: tuple[str, ...] = ()


JobPolicy = Callable[[View, float], Verdict | None]


@dataclasses.dataclass(frozen=True)
class Running:
    """An attempt that the status has as running."""

    view: View
    entry: StageStatus
    record: Attempt
    job: ObservedAttempt | None
    """None: there is no such Job."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class End:
    """How an attempt ended."""

    outcome: str
    message: str = ""
    success: StageSuccess | None = None
    permanent: bool = False
    """Another attempt would end the same way."""
    free: bool = False
    """Not the job's fault."""
    checkpoint_step: int | None = None
    """Newest committed checkpoint that a pod told of."""
    told: bool = True
    """Whether `checkpoint_step` can be relied on: a pod has spoken, or none had begun."""
    rank: int | None = None
    pod: str = ""
    node: str = ""
    exit_code: int | None = None


AttemptPolicy = Callable[[Running, float], End | None]
