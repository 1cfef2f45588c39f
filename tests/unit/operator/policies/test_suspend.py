"""Suspension frees the machines without losing what was done, and resumes where it stood."""

from kompress_api.status import Phase, StageState
from kompress_operator.actions import CreateAttempt, DeleteAttempt
from kompress_operator.reconcile import reconcile
from kompress_operator.times import rfc3339
from unit.operator.builders import NOW, actions, after, attempt, complete, entry, fresh, job, observed, running, succeeded

SUSPEND = {"suspend": True}


def test_the_outcome_is_written_before_the_job_is_deleted() -> None:
    seen = observed(job("adapt"), stages=(running("adapt"),), spec=SUSPEND)
    first = reconcile(seen, NOW)
    assert first.actions == ()
    stage = first.status.stage("adapt")
    assert stage is not None
    assert (first.status.phase, stage.state, stage.attempts[-1].outcome) == (Phase.SUSPENDED, StageState.SUSPENDED, "Cancelled")
    second = observed(job("adapt"), status=dict(first.status), spec=SUSPEND)
    assert actions(second) == [DeleteAttempt("flowers-adapt-1", "uid-adapt-1")]


def test_it_is_said_only_when_nothing_runs_any_more() -> None:
    stopping = observed(job("adapt", deleting=NOW - 1), stages=(entry("adapt", "Suspended", attempt(1, "Cancelled")),), spec=SUSPEND)
    assert {c.type: c.status for c in reconcile(stopping, NOW).status.conditions} == {"Running": "False", "Suspended": "False"}
    stopped = observed(stages=(entry("adapt", "Suspended", attempt(1, "Cancelled")),), spec=SUSPEND)
    assert {c.type: c.status for c in reconcile(stopped, NOW).status.conditions} == {"Running": "False", "Suspended": "True"}


def test_resuming_starts_a_new_attempt_for_free() -> None:
    stage = entry("adapt", "Suspended", attempt(1, "Cancelled"))
    seen = observed(stages=(stage,), status={"suspended_at": rfc3339(NOW - 40), "suspended_seconds": 5.0})
    decision = reconcile(seen, NOW)
    assert decision.actions == (CreateAttempt("adapt", 2),)
    assert (decision.status.suspended_seconds, decision.status.suspended_at, decision.status.restarts) == (45.0, None, 0)


def test_resuming_waits_for_the_pods_that_still_save_their_checkpoint() -> None:
    stage = entry("adapt", "Suspended", attempt(1, "Cancelled"))
    assert actions(observed(job("adapt", deleting=NOW - 5), stages=(stage,), status={"suspended_at": rfc3339(NOW - 5)})) == []


def test_a_job_that_is_created_suspended_makes_nothing() -> None:
    decision = reconcile(fresh(spec=SUSPEND), NOW)
    assert (decision.actions, decision.status.phase) == ((), Phase.SUSPENDED)


def test_a_suspended_job_does_not_start_its_report_either() -> None:
    assert actions(observed(stages=(succeeded("adapt"), succeeded("slim")), spec=SUSPEND)) == []


def test_a_stage_that_ended_while_it_was_suspended_counts() -> None:
    assert after(observed(complete("adapt"), stages=(running("adapt"),), spec=SUSPEND), "adapt").state is StageState.SUCCEEDED
