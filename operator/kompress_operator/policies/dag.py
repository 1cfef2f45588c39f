"""Which stages start: the preflight before all others, then each stage whose inputs are there, in the order of the manifest."""

from collections.abc import Iterator

from kompress_api.names import PREFLIGHT, REPORT
from kompress_api.reasons import Reason
from kompress_api.status import StageState
from kompress_operator.policies.verdict import Course, Verdict
from kompress_operator.times import epoch
from kompress_operator.view import View, newest


def preflight_first(view: View, now: float) -> Verdict | None:
    """Nothing else starts before the whole plan was checked."""
    if view.preflight_succeeded or view.state(PREFLIGHT).ended:
        return None
    return Verdict(Course.START, Reason.PREFLIGHT, starts=(PREFLIGHT,) if may_start(view, PREFLIGHT, now) else ())


def order(view: View, now: float) -> Verdict | None:
    """Stages whose inputs have succeeded, as many at once as maxParallelStages allows."""
    if view.merged is None:
        return None
    busy = sum(entry.state is StageState.RUNNING or view.occupied(entry.name, now) for entry in view.user_entries)
    ready = [entry.name for entry in view.user_entries if may_start(view, entry.name, now) and inputs_are_there(view, entry.name)]
    return Verdict(Course.START, Reason.STAGE_RUNNING, starts=tuple(ready[: max(0, view.merged.max_parallel_stages - busy)]))


def may_start(view: View, name: str, now: float) -> bool:
    """Whether a stage waits for nothing of its own: its backoff is over, and no pod of an earlier attempt is left."""
    entry = view.entry(name)
    if entry.state.ended or entry.state is StageState.RUNNING or view.occupied(name, now):
        return False
    return entry.retry_at is None or epoch(entry.retry_at) <= now


def inputs_are_there(view: View, name: str) -> bool:
    """Whether all that a stage takes in has been made."""
    return all(view.state(other) is StageState.SUCCEEDED for other in view.dependencies(name))


def wants_reuse(view: View, name: str) -> bool:
    """Whether the preflight saw a commit under this stage's key, and no attempt has found it gone since."""
    plan = view.status.plan
    if plan is None or not plan.hits.get(name, False):
        return False
    last = newest(view.entry(name))
    return last is None or (last.reuse and last.outcome != Reason.REUSE_MISSED)


def ready_at(view: View, name: str) -> float:
    """Since when nothing but the operator holds a stage back."""
    entry = view.entry(name)
    if entry.retry_at is not None:
        return epoch(entry.retry_at)
    before = view.dependencies(name) | {PREFLIGHT} if name not in (PREFLIGHT, REPORT) else {e.name for e in view.user_entries}
    ends = [epoch(last.ended_at) for other in before if (last := newest(view.entry(other))) is not None and last.ended_at is not None]
    return max(ends, default=view.observed.job.created)


def alarms(view: View, now: float) -> Iterator[float]:
    """When backoffs are over."""
    for entry in view.status.stages:
        if entry.state is StageState.BACKING_OFF and entry.retry_at is not None:
            yield epoch(entry.retry_at)
