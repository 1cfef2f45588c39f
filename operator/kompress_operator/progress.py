"""What attempts did since the status was written: their ends are recorded, attempts that nobody recorded are adopted.

An attempt is adopted when its Job was created but the operator died before it could write the status. Here the status
moves on; why an attempt ended and what follows is said by `policies`.
"""

import dataclasses

from kompress_api.merge import BUILT_IN, ResolvedRestartPolicy
from kompress_api.names import PREFLIGHT, REPORT
from kompress_api.reasons import Reason
from kompress_api.status import MAX_FIGURES, Attempt, PlanStatus, StageResult, StageState, StageStatus
from kompress_operator.observed import ObservedAttempt
from kompress_operator.policies import ATTEMPT_POLICIES
from kompress_operator.policies.dag import wants_reuse
from kompress_operator.policies.report import needed
from kompress_operator.policies.restart import after
from kompress_operator.policies.succeeded import made
from kompress_operator.policies.verdict import End, Running
from kompress_operator.times import rfc3339
from kompress_operator.view import Trouble, View, newest


def record_ends(view: View, now: float) -> View:
    """The view with every attempt's end recorded, and every unknown attempt adopted."""
    for name in [entry.name for entry in view.status.stages]:
        view = _judge_newest(view, name, now)
        for job in view.jobs_of(name):
            last = newest(view.entry(name))
            if not view.state(name).ended and (last is None or job.attempt > last.attempt):
                view = _judge_newest(_adopt(view, job, now), name, now)
    return view


def begin(view: View, name: str, attempt: int, started_at: float, reuse: bool) -> View:
    """The view with a new attempt recorded."""
    entry = view.entry(name)
    record = Attempt(attempt=attempt, started_at=rfc3339(started_at), reuse=reuse)
    view = view.with_entry(entry.model_copy(update={"state": StageState.RUNNING, "retry_at": None, "attempts": [*entry.attempts, record]}))
    return view if view.status.started_at is not None else view.with_status(started_at=rfc3339(started_at))


def stop(view: View, entry: StageStatus, end: End, state: StageState, now: float) -> View:
    """The view with a running attempt's outcome decided by the operator; its Job is deleted once this status is observed."""
    return view.with_entry(_ended(entry, end, now).model_copy(update={"state": state, "retry_at": None}))


def pause(view: View, now: float) -> View:
    """Suspension: what runs is cancelled, for free."""
    for entry in view.status.stages:
        if entry.state is StageState.RUNNING:
            view = stop(view, entry, End(outcome=Reason.CANCELLED, message="the job was suspended"), StageState.SUSPENDED, now)
    return view


def settle(view: View, failure: Trouble, now: float) -> View:
    """The job fails: what runs is cancelled, what has not run is skipped; the report stays where there is something to report."""
    view = dataclasses.replace(view, failure=failure)
    late = failure.reason == Reason.DEADLINE_EXCEEDED
    end = End(outcome=Reason.DEADLINE_EXCEEDED if late else Reason.CANCELLED, message=failure.message)
    for entry in view.status.stages:
        if entry.state.ended or (entry.name == REPORT and needed(view)):
            continue
        if entry.state is StageState.RUNNING:
            view = stop(view, entry, end, StageState.FAILED if late else StageState.SKIPPED, now)
        else:
            view = view.with_entry(entry.model_copy(update={"state": StageState.SKIPPED, "retry_at": None}))
    return view


def _adopt(view: View, job: ObservedAttempt, now: float) -> View:
    entry = view.entry(job.stage)
    reuse = wants_reuse(view, job.stage)
    if entry.state is StageState.RUNNING:
        view = stop(view, entry, End(outcome=Reason.CANCELLED, message=f"attempt {job.attempt} has taken over"), StageState.PENDING, now)
    return begin(view, job.stage, job.attempt, job.created, reuse)


def _judge_newest(view: View, name: str, now: float) -> View:
    entry = view.entry(name)
    record = newest(entry)
    if record is None or record.outcome:
        return view
    job = next((job for job in view.jobs_of(name) if job.attempt == record.attempt), None)
    record = _note_failure(_note_disruption(record, job), job, now)
    entry = entry.model_copy(update={"attempts": [*entry.attempts[:-1], record]})
    running = Running(view.with_entry(entry), entry, record, job)
    for policy in ATTEMPT_POLICIES:
        end = policy(running, now)
        if end is not None:
            return _record(running, end, now)
    return running.view


def _note_disruption(record: Attempt, job: ObservedAttempt | None) -> Attempt:
    pod = next((pod for pod in (job.pods if job is not None else None) or () if pod.disruption is not None), None)
    if pod is None or pod.disruption is None or record.disruption:
        return record
    return record.model_copy(update={"disruption": pod.disruption.value, "pod": pod.name, "node": pod.node})


def _note_failure(record: Attempt, job: ObservedAttempt | None, now: float) -> Attempt:
    """Our own time, not the nodes': their clocks differ, and a pod that was deleted is gone with its own."""
    if job is None or job.ended or not job.failed_pods or record.failing_since is not None:
        return record
    return record.model_copy(update={"failing_since": rfc3339(now)})


def _record(running: Running, end: End, now: float) -> View:
    view = running.view
    policy = view.merged.restart_policy if view.merged is not None else ResolvedRestartPolicy.model_validate(BUILT_IN["restartPolicy"])
    following = after(running.entry, end, policy, view.clock(now))
    retry_at = rfc3339(now + following.wait) if following.state is StageState.BACKING_OFF else None
    entry = _ended(running.entry, end, now, spent=following.spends)
    fields: dict[str, object] = {"state": following.state, "retry_at": retry_at}
    if following.spends:
        fields["spent_restarts"] = list(following.spent)
        view = view.with_status(restarts=view.status.restarts + 1)
    if end.success is not None:
        fields["result"] = StageResult(
            artifact=made(entry.name, end.success),
            digest=end.success.plan_digest if entry.name == PREFLIGHT else end.success.digest,
            key=end.success.key,
            metrics=dict(list(end.success.metrics.items())[:MAX_FIGURES]),
            mlflow_run_id=end.success.mlflow_run_id,
            reused=end.success.reused,
        )
    view = view.with_entry(entry.model_copy(update=fields))
    return _take_plan(view, end) if entry.name == PREFLIGHT and end.success is not None else view


def _ended(entry: StageStatus, end: End, now: float, spent: bool = False) -> StageStatus:
    record = entry.attempts[-1]
    known: dict[str, object] = {"rank": end.rank, "exit_code": end.exit_code, "checkpoint_step": end.checkpoint_step}
    known |= {"pod": end.pod or None, "node": end.node or None}
    said: dict[str, object] = {"ended_at": rfc3339(now), "outcome": str(end.outcome), "message": end.message}
    said |= {"spent_restart": spent, "failing_since": None}
    record = record.model_copy(update=said | {name: value for name, value in known.items() if value is not None})
    return entry.model_copy(update={"attempts": [*entry.attempts[:-1], record]})


def _take_plan(view: View, end: End) -> View:
    assert end.success is not None
    said = end.success
    plan = PlanStatus(uri=said.plan, digest=said.plan_digest, keys=said.keys, hits=said.hits)
    return view.with_status(plan=plan, mlflow_run_id=said.parent_run_id, mlflow_run_url=said.parent_run_url)
