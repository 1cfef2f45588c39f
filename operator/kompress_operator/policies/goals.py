"""The end of a job: all its stages have ended, the report too, and the goals are judged."""

from kompress_api.goals import GoalResult
from kompress_api.judge import judge
from kompress_api.names import REPORT
from kompress_api.reasons import MEANING, Reason
from kompress_api.status import StageState
from kompress_operator.policies.cancellation import describe
from kompress_operator.policies.report import needed
from kompress_operator.policies.verdict import Course, Verdict
from kompress_operator.view import View

SPEED = frozenset({"latencyP50Ms", "latencyP99Ms", "throughputPerSecond"})


def conclude(view: View, now: float) -> Verdict | None:
    """Complete, or why not. A job that failed keeps its own reason; a report that failed spoils a good job only."""
    if view.failure is not None and not needed(view):
        return Verdict(Course.END, view.failure.reason, view.failure.message)
    if not view.stages_ended or not view.entry(REPORT).state.ended:
        return None
    if view.failure is not None:
        return Verdict(Course.END, view.failure.reason, view.failure.message)
    if view.state(REPORT) is StageState.FAILED:
        return Verdict(Course.END, Reason.REPORT_FAILED, describe(view.entry(REPORT)))
    missed = [goal for goal in judged(view) if not goal.met]
    if not missed:
        return Verdict(Course.END, Reason.GOALS_MET, MEANING[Reason.GOALS_MET])
    reason = Reason.NO_SPEEDUP if all(goal.metric in SPEED for goal in missed) else Reason.GOAL_MISSED
    return Verdict(Course.END, reason, "; ".join(tell(goal) for goal in missed))


def judged(view: View) -> list[GoalResult]:
    """What became of each goal; nothing before all stages have succeeded."""
    if view.merged is None or any(entry.state is not StageState.SUCCEEDED for entry in view.user_entries):
        return view.status.goals
    figures = {entry.name: entry.result.metrics for entry in view.status.stages if entry.result is not None}
    return judge(view.merged, figures)


def tell(goal: GoalResult) -> str:
    """A missed goal: which figure, what was asked, and the stage that lost most."""
    value = "was not measured" if goal.value is None else f"is {goal.value:g}"
    against = f" (baseline {goal.baseline:g})" if goal.baseline is not None else ""
    worst = max(goal.loss.items(), key=lambda item: abs(item[1]), default=None)
    where = f"; largest change at {worst[0]}: {worst[1]:+g}" if worst is not None else ""
    return f"{goal.metric} of {goal.stage} {value}{against}, asked {goal.bound}{where}"
