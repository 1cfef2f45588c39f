"""A stage that failed for good fails the job: its siblings are cancelled, the rest is skipped.

The preflight that failed for good says that the plan can't work; no stage was started, and there is nothing to report on.
"""

from kompress_api.errors import PERMANENT
from kompress_api.names import PREFLIGHT, REPORT
from kompress_api.reasons import Reason
from kompress_api.status import StageState, StageStatus
from kompress_operator.policies.verdict import Course, Verdict
from kompress_operator.view import View, newest


def preflight_failed(view: View, now: float) -> Verdict | None:
    """PreflightFailed."""
    if view.state(PREFLIGHT) is not StageState.FAILED:
        return None
    return Verdict(Course.FAIL, Reason.PREFLIGHT_FAILED, describe(view.entry(PREFLIGHT)))


def stage_failed(view: View, now: float) -> Verdict | None:
    """StageFailed, or RestartsExhausted where another attempt might have helped."""
    for entry in view.user_entries:
        if entry.state is StageState.FAILED:
            last = newest(entry)
            permanent = last is not None and last.exit_code in PERMANENT
            return Verdict(Course.FAIL, Reason.STAGE_FAILED if permanent else Reason.RESTARTS_EXHAUSTED, describe(entry))
    return None


def describe(entry: StageStatus) -> str:
    """A failed stage in one paragraph: which attempt ended how and where."""
    last = newest(entry)
    if last is None:
        return f"stage {entry.name} failed"
    facts = [f"rank {last.rank}" if last.rank is not None else "", f"pod {last.pod}" if last.pod else ""]
    facts += [f"node {last.node}" if last.node else "", f"exit code {last.exit_code}" if last.exit_code is not None else ""]
    where = ", ".join(fact for fact in facts if fact)
    what = "report" if entry.name == REPORT else f"stage {entry.name}"
    return f"{what}, attempt {last.attempt}: {last.outcome}{f' ({where})' if where else ''}: {last.message}"
