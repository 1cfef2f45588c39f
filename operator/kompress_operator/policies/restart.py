"""What follows the end of an attempt: nothing more, or another attempt after its backoff.

A restart is the whole gang's, from the newest checkpoint. What is not the job's fault (preempted, evicted, node lost,
interrupted after a checkpoint) is free as long as it brought the stage further; the rest spends a budget in a sliding
window. Window and budget are told by the job's own clock, which stands still while it is suspended.
"""

import dataclasses

from kompress_api.merge import ResolvedRestartPolicy
from kompress_api.reasons import Reason
from kompress_api.status import StageState, StageStatus
from kompress_operator.policies.verdict import End

MAX_FACTOR = 16
"""The backoff doubles with each restart in the window up to this."""


@dataclasses.dataclass(frozen=True)
class Next:
    """What follows."""

    state: StageState
    wait: float = 0.0
    """Seconds before the next attempt."""
    spends: bool = False
    """Whether this end counts as a restart."""
    spent: tuple[int, ...] = ()
    """The restarts within the window, this one included."""


def after(entry: StageStatus, end: End, policy: ResolvedRestartPolicy, clock: float) -> Next:
    """What follows `end`, where `entry` is the stage before it and `clock` the job's own time."""
    spent = tuple(time for time in entry.spent_restarts if clock - time < policy.window_seconds)
    if end.outcome == Reason.SUCCEEDED:
        return Next(StageState.SUCCEEDED, spent=spent)
    if end.outcome == Reason.REUSE_MISSED:
        return Next(StageState.PENDING, spent=spent)
    if end.permanent:
        return Next(StageState.FAILED, spent=spent)
    wait = float(policy.backoff_seconds * min(MAX_FACTOR, 2 ** len(spent)))
    if end.free and went_further(entry, end):
        return Next(StageState.BACKING_OFF, wait, spent=spent)
    if len(spent) >= policy.max_restarts:
        return Next(StageState.FAILED, spent=spent)
    return Next(StageState.BACKING_OFF, wait, spends=True, spent=(*spent, int(clock)))


def went_further(entry: StageStatus, end: End) -> bool:
    """Whether an attempt brought a newer checkpoint than all before it.

    Where nobody could tell (a lost node takes its pod's last words with it) it is believed once, not twice in a row.
    """
    before = entry.attempts[:-1]
    if end.checkpoint_step is not None:
        return end.checkpoint_step > max((a.checkpoint_step for a in before if a.checkpoint_step is not None), default=-1)
    if end.told:
        return False
    last = before[-1] if before else None
    believed = last is not None and last.checkpoint_step is None and not last.spent_restart and last.outcome in _FREE_OUTCOMES
    return not believed


_FREE_OUTCOMES = frozenset({Reason.PREEMPTED, Reason.EVICTED, Reason.NODE_LOST, Reason.INTERRUPTED})
