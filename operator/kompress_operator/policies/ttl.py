"""What has ended stays as it is; `ttlSecondsAfterFinished` later its Jobs, pods and Service are removed, the CompressionJob stays."""

from collections.abc import Iterator

from kompress_api.merge import BUILT_IN
from kompress_api.reasons import Reason
from kompress_operator.policies.verdict import Course, Verdict
from kompress_operator.times import epoch
from kompress_operator.view import View


def finished(view: View, now: float) -> Verdict | None:
    """Nothing more, or the removal of what is left."""
    if not view.status.phase.finished:
        return None
    at = ends_at(view)
    course = Course.CLEAN_UP if at is not None and now >= at else Course.REST
    return Verdict(course, view.failure.reason if view.failure else Reason.GOALS_MET)


def ends_at(view: View) -> float | None:
    """When what is left is removed (the TTL is read live); None where nothing is left."""
    if view.status.finished_at is None or not (view.observed.attempts or view.observed.service):
        return None
    ttl = view.observed.job.spec.get("ttlSecondsAfterFinished")
    if not isinstance(ttl, int):
        ttl = view.merged.ttl_seconds_after_finished if view.merged is not None else BUILT_IN["ttlSecondsAfterFinished"]
    return epoch(view.status.finished_at) + float(ttl)


def alarms(view: View, now: float) -> Iterator[float]:
    """When the TTL is over."""
    if view.status.phase.finished and (at := ends_at(view)) is not None:
        yield at
