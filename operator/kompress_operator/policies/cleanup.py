"""Which attempts are stopped or removed. What destroys evidence waits until the *observed* status holds the outcome.

An attempt that ended by itself stays until the TTL, for its logs. What is stopped is: an attempt whose outcome was decided
while it ran (suspension, deadline, cancellation, a start that took too long, pods that run on long after a sibling has failed),
one that a finished job or stage does not need, and one that `attempts[]` no longer lists.
"""

from collections.abc import Iterator

from kompress_operator.actions import DeleteAttempt
from kompress_operator.observed import Observed, ObservedAttempt


def removals(observed: Observed) -> Iterator[DeleteAttempt]:
    """By the status as it was observed, never as this pass would like it to be."""
    for job in observed.attempts:
        if job.deleting is None and (why := reason_to_remove(observed, job)):
            yield DeleteAttempt(job.name, job.uid, why)


def reason_to_remove(observed: Observed, job: ObservedAttempt) -> str:
    """Empty: it stays."""
    entry = observed.status.stage(job.stage)
    if entry is None:
        return ""
    record = next((known for known in entry.attempts if known.attempt == job.attempt), None)
    if record is None and entry.attempts and job.attempt < entry.attempts[-1].attempt:
        return "no longer listed in status"
    if job.ended:
        return ""
    if record is not None and record.outcome:
        return record.outcome
    if record is None and (entry.state.ended or observed.status.phase.finished):
        return f"stage {job.stage} has ended"
    return ""
