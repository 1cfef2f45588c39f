"""The report comes last, also after a failure or a deadline, so that no run of a finished job stays RUNNING in MLflow.

It has 15 minutes of its own, outside of `activeDeadlineSeconds`. Without a successful preflight there is nothing to
report on, and no parent run to close.
"""

from collections.abc import Iterator

from kompress_api.names import REPORT
from kompress_api.reasons import Reason
from kompress_api.status import StageState, StageStatus
from kompress_operator.policies.dag import may_start
from kompress_operator.policies.verdict import Course, End, Running, Verdict
from kompress_operator.times import epoch
from kompress_operator.view import View

DEADLINE_SECONDS = 15 * 60.0


def report(view: View, now: float) -> Verdict | None:
    """The report, once nothing of the stages runs any more."""
    if not view.stages_ended or not needed(view) or view.entry(REPORT).state.ended:
        return None
    if any(view.occupied(entry.name, now) for entry in view.user_entries):
        return Verdict(Course.WAIT, Reason.REPORTING, "waits for the pods of stopped stages")
    return Verdict(Course.START, Reason.REPORTING, starts=(REPORT,) if may_start(view, REPORT, now) else ())


def needed(view: View) -> bool:
    """Whether there is anything to report on."""
    return view.preflight_succeeded


def report_deadline(running: Running, now: float) -> End | None:
    """The report took too long, all its attempts together."""
    if running.entry.name != REPORT or now < deadline_at(running.entry):
        return None
    return End(outcome=Reason.DEADLINE_EXCEEDED, message=f"the report took longer than its {DEADLINE_SECONDS:.0f} s", permanent=True)


def deadline_at(entry: StageStatus) -> float:
    """When the running report must be done; time between attempts, suspended or backing off, is not counted."""
    earlier = sum(epoch(a.ended_at) - epoch(a.started_at) for a in entry.attempts if a.ended_at is not None)
    return epoch(entry.attempts[-1].started_at) + DEADLINE_SECONDS - earlier


def alarms(view: View, now: float) -> Iterator[float]:
    """When it must be done."""
    entry = view.status.stage(REPORT)
    if entry is not None and entry.state is StageState.RUNNING:
        yield deadline_at(entry)
