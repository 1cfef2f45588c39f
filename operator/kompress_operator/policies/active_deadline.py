"""`activeDeadlineSeconds`: how long the stages may run in all. Time spent suspended is not counted, nor is the report's."""

from collections.abc import Iterator

from kompress_api.reasons import Reason
from kompress_operator.policies.verdict import Course, Verdict
from kompress_operator.times import epoch
from kompress_operator.view import View


def active_deadline(view: View, now: float) -> Verdict | None:
    """DeadlineExceeded."""
    left = seconds_left(view, now)
    if left is None or left > 0:
        return None
    limit = view.merged.active_deadline_seconds if view.merged is not None else None
    open_stages = ", ".join(entry.name for entry in view.user_entries if not entry.state.ended)
    return Verdict(
        Course.FAIL, Reason.DEADLINE_EXCEEDED, f"the stages ran longer than activeDeadlineSeconds ({limit}); not done: {open_stages}"
    )


def seconds_left(view: View, now: float) -> float | None:
    """Running time that is left; None where there is no limit, or nothing that it limits."""
    limit = view.merged.active_deadline_seconds if view.merged is not None else None
    if limit is None or view.status.started_at is None or view.stages_ended:
        return None
    return epoch(view.status.started_at) + limit - view.clock(now)


def alarms(view: View, now: float) -> Iterator[float]:
    """When it is over, if the job isn't suspended until then."""
    left = seconds_left(view, now)
    if left is not None and not view.suspended and not view.status.phase.finished:
        yield now + left
