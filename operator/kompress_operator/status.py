"""The status that is written: phase, conditions, summary, and lists cut to what the API allows.

A projection: it decides nothing, and the same view gives the same status, so that nothing is written when nothing
changed. A condition's transition time moves only with its status.
"""

from kompress_api.dag import baseline_of
from kompress_api.goals import BASELINE_PREFIX
from kompress_api.judge import figure_of_stage
from kompress_api.names import PREFLIGHT
from kompress_api.reasons import MEANING, Reason
from kompress_api.status import MAX_MESSAGE, CompressionJobStatus, Condition, ConditionType, Phase, StageState, Summary
from kompress_operator.limits import clip, fit
from kompress_operator.policies.goals import judged
from kompress_operator.policies.start_deadline import late, what_it_waits_for
from kompress_operator.policies.verdict import Course, Verdict
from kompress_operator.times import rfc3339
from kompress_operator.view import View, newest


def project(view: View, verdict: Verdict, now: float) -> CompressionJobStatus:
    """The status after this pass."""
    generation = view.observed.job.generation
    if view.observed.status.phase.finished:
        return view.observed.status.model_copy(update={"observed_generation": generation})
    phase = _phase(view, verdict)
    view = view.with_status(
        observed_generation=generation,
        phase=phase,
        finished_at=rfc3339(now) if phase.finished else None,
        goals=judged(view),
    )
    return fit(view.with_status(conditions=_conditions(view, verdict, now), summary=_summary(view)).status)


def _phase(view: View, verdict: Verdict) -> Phase:
    if verdict.course is Course.END:
        return Phase.COMPLETE if verdict.reason == Reason.GOALS_MET else Phase.FAILED
    if verdict.course is Course.SUSPEND:
        return Phase.SUSPENDED
    if view.stages_ended:
        return Phase.REPORTING
    if view.preflight_succeeded:
        return Phase.RUNNING
    return Phase.PREFLIGHT if view.status.started_at is not None else Phase.PENDING


def _conditions(view: View, verdict: Verdict, now: float) -> list[Condition]:
    said: dict[ConditionType, tuple[bool, str, str]] = {"Running": _running(view, verdict, now)}
    if verdict.course is Course.SUSPEND:
        stopping = any(not job.ended for job in view.observed.attempts)
        said["Suspended"] = (not stopping, Reason.SUSPENDED, verdict.message)
    elif view.condition("Suspended") is not None:
        said["Suspended"] = (False, Reason.RESUMED, MEANING[Reason.RESUMED])
    if verdict.course is Course.END and verdict.reason == Reason.GOALS_MET:
        said["Complete"] = (True, verdict.reason, verdict.message)
    if verdict.course is Course.END and verdict.reason != Reason.GOALS_MET:
        said["Failed"] = (True, verdict.reason, verdict.message)
    elif view.failure is not None:
        said["Failed"] = (False, view.failure.reason, view.failure.message)  # decided; it becomes true when the report has ended
    return [_condition(view, kind, *content, now) for kind, content in said.items()]


def _condition(view: View, kind: ConditionType, holds: bool, reason: str, message: str, now: float) -> Condition:
    status = "True" if holds else "False"
    before = view.condition(kind)
    since = before.last_transition_time if before is not None and before.status == status else rfc3339(now)
    return Condition(
        type=kind,
        status=status,
        reason=str(reason),
        message=clip(message, MAX_MESSAGE),
        last_transition_time=since,
        observed_generation=view.observed.job.generation,
    )


def _running(view: View, verdict: Verdict, now: float) -> tuple[bool, str, str]:
    if verdict.course in (Course.END, Course.SUSPEND):
        return False, verdict.reason, ""
    running = [entry for entry in view.status.stages if entry.state is StageState.RUNNING]
    if verdict.course is Course.WAIT:
        return bool(running), verdict.reason, verdict.message
    if running:
        jobs = [job for entry in running for job in view.jobs_of(entry.name) if job.attempt == entry.attempts[-1].attempt]
        waits = [f"; {job.name} waits: {what_it_waits_for(job)[1]}" for job in jobs if late(job, now) and job.pods]
        if jobs and all(job.queued for job in jobs):
            return True, Reason.QUEUED, MEANING[Reason.QUEUED]
        reason = Reason.STAGE_RUNNING
        if view.stages_ended:
            reason = Reason.REPORTING
        elif running[0].name == PREFLIGHT:
            reason = Reason.PREFLIGHT
        names = ", ".join(f"{entry.name} (attempt {entry.attempts[-1].attempt})" for entry in running)
        return True, reason, f"{names}{''.join(waits)}"
    if verdict.starts:
        return True, verdict.reason, f"next: {', '.join(verdict.starts)}"
    backing_off = [entry for entry in view.status.stages if entry.state is StageState.BACKING_OFF]
    if backing_off:
        last = [(entry, newest(entry)) for entry in backing_off]
        told = "; ".join(
            f"{entry.name} after {attempt.outcome}, next at {entry.retry_at}" for entry, attempt in last if attempt is not None
        )
        return False, Reason.BACKING_OFF, told
    return False, verdict.reason, verdict.message


def _summary(view: View) -> Summary:
    entries = view.status.stages
    shown = [e for e in entries if e.state is StageState.RUNNING] or [e for e in entries if e.state is StageState.FAILED]
    shown = shown or [e for e in entries if e.state in (StageState.BACKING_OFF, StageState.SUSPENDED)]
    attempt = newest(shown[0]) if shown else None
    done = sum(entry.state.ended for entry in view.user_entries)
    return Summary(
        stage=",".join(entry.name for entry in shown),
        attempt=attempt.attempt if attempt is not None else None,
        progress=f"{done}/{len(view.user_entries)}" if view.user_entries else "",
        accuracy=_last_figures(view).get("accuracy"),
        wer=_last_figures(view).get("wer"),
        smaller=_better(view, "modelSizeBytes"),
        faster=_better(view, "latencyP50Ms"),
    )


def _last_figures(view: View) -> dict[str, float]:
    entry = view.user_entries[-1] if view.user_entries else None
    return entry.result.metrics if entry is not None and entry.result is not None else {}


def _better(view: View, metric: str) -> float | None:
    """The baseline's figure over the last stage's; the same exporter's where there is one."""
    own = _last_figures(view)
    value, reference = own.get(metric), own.get(BASELINE_PREFIX + metric)
    if reference is None and metric == "modelSizeBytes" and view.merged is not None:
        figures = {entry.name: entry.result.metrics for entry in view.status.stages if entry.result is not None}
        reference = figure_of_stage(figures, baseline_of(view.merged), metric)
    return round(reference / value, 4) if value and reference is not None else None
