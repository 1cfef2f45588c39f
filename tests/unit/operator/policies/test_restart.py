"""Restarts: what is free, what spends the budget, how long it takes, and when it is over."""

from typing import Any

import pytest

from kompress_api.reasons import Reason
from kompress_api.status import StageState
from kompress_operator.actions import CreateAttempt
from kompress_operator.reconcile import reconcile
from kompress_operator.times import epoch
from unit.operator.builders import NOW, actions, after, attempt, crashed, entry, failed, observed, pod, running


def test_the_next_attempt_waits_for_its_backoff_and_then_starts() -> None:
    seen = observed(failed("adapt", 1, crashed()), stages=(running("adapt"),))
    decision = reconcile(seen, NOW)
    stage = decision.status.stage("adapt")
    assert stage is not None and stage.retry_at is not None
    assert (stage.state, epoch(stage.retry_at), decision.actions) == (StageState.BACKING_OFF, NOW + 10, ())
    assert decision.requeue_after == 10
    again = observed(failed("adapt", 1, crashed()), status=dict(decision.status))
    assert actions(again, NOW + 9) == []
    assert actions(again, NOW + 10) == [CreateAttempt("adapt", 2)]


@pytest.mark.parametrize(("spent", "wait"), [(0, 10), (1, 20), (2, 40), (5, 160), (9, 160)])
def test_the_backoff_doubles_up_to_sixteen_times(spent: int, wait: int) -> None:
    stage = running("adapt").model_copy(update={"spent_restarts": [int(NOW) - 60] * spent})
    policy = {"maxRestarts": 20, "windowSeconds": 3600, "backoffSeconds": 10}
    found = after(observed(failed("adapt", 1, crashed()), stages=(stage,), spec={"restartPolicy": policy}), "adapt")
    assert found.retry_at is not None and epoch(found.retry_at) == NOW + wait


def test_the_budget_is_spent_and_then_the_stage_fails() -> None:
    stage = running("adapt").model_copy(update={"spent_restarts": [int(NOW) - 60] * 3})
    decision = reconcile(observed(failed("adapt", 1, crashed()), stages=(stage,)), NOW)
    failure = next(c for c in decision.status.conditions if c.type == "Failed")
    assert (failure.reason, failure.status) == ("RestartsExhausted", "False")
    assert "boom" in failure.message and "rank 0" in failure.message


def test_restarts_older_than_the_window_are_forgotten() -> None:
    stage = running("adapt").model_copy(update={"spent_restarts": [int(NOW) - 3601] * 3})
    found = after(observed(failed("adapt", 1, crashed()), stages=(stage,)), "adapt")
    assert (found.state, found.spent_restarts) == (StageState.BACKING_OFF, [int(NOW)])


def test_the_window_stands_still_while_the_job_is_suspended() -> None:
    """Three restarts, an hour of suspension, and the next failure: the hour does not buy them back."""
    stage = running("adapt").model_copy(update={"spent_restarts": [int(NOW) - 3700] * 3})
    seen = observed(failed("adapt", 1, crashed()), stages=(stage,), status={"suspended_seconds": 3600.0})
    assert after(seen, "adapt").state is StageState.FAILED


def preempted(**fields: Any) -> Any:
    return failed("adapt", 2, pod(0, disruption=Reason.PREEMPTED, disrupted_at=NOW - 5, finished_at=NOW - 1, **fields))


def test_a_disruption_is_free_as_long_as_it_brought_a_newer_checkpoint() -> None:
    gang = failed(
        "adapt",
        2,
        pod(0, disruption=Reason.PREEMPTED, disrupted_at=NOW - 5, finished_at=NOW - 1),
        crashed(1, code=75, reason="Interrupted", checkpoint_step=20),
    )
    before = attempt(1, "Preempted", checkpoint_step=10)
    found = after(observed(gang, stages=(entry("adapt", "Running", before, attempt(2)),)), "adapt")
    assert (found.state, found.spent_restarts) == (StageState.BACKING_OFF, [])
    stuck = after(observed(gang, stages=(entry("adapt", "Running", attempt(1, "Preempted", checkpoint_step=20), attempt(2)),)), "adapt")
    assert stuck.attempts[-1].spent_restart


def test_a_pod_that_was_preempted_before_it_began_brought_nothing() -> None:
    found = after(observed(preempted(started=False), stages=(entry("adapt", "Running", attempt(1, "ValueError"), attempt(2)),)), "adapt")
    assert found.attempts[-1].spent_restart


def test_a_lost_node_takes_the_last_words_and_is_believed_once() -> None:
    lost = failed("adapt", 2, pod(0, disruption=Reason.NODE_LOST, disrupted_at=NOW - 5, finished_at=NOW - 1))
    once = after(observed(lost, stages=(entry("adapt", "Running", attempt(1, "ValueError"), attempt(2)),)), "adapt")
    assert not once.attempts[-1].spent_restart
    twice = after(observed(lost, stages=(entry("adapt", "Running", attempt(1, "NodeLost"), attempt(2)),)), "adapt")
    assert twice.attempts[-1].spent_restart


def test_attempt_counts_every_start_and_restarts_only_what_was_spent() -> None:
    decision = reconcile(
        observed(
            failed("adapt", 3, crashed()),
            stages=(entry("adapt", "Running", attempt(1, "Preempted"), attempt(2, "Cancelled"), attempt(3)),),
        ),
        NOW,
    )
    found = decision.status.stage("adapt")
    assert found is not None
    assert (decision.status.restarts, found.attempts[-1].attempt) == (1, 3)


def test_a_pod_of_the_last_attempt_that_still_runs_holds_the_next_one_back() -> None:
    """Two gangs of one stage would fight for the same GPUs."""
    stage = entry("adapt", "BackingOff", attempt(1, "StartupDeadlineExceeded"))
    ending = failed("adapt", 1, pod(0, delete_by=NOW + 5), failed=False, deleting=NOW - 55)
    assert actions(observed(ending, stages=(stage,))) == []
    lost = failed("adapt", 1, pod(0, delete_by=NOW - 31), failed=False, deleting=NOW - 91)
    assert actions(observed(lost, stages=(stage,))) == [CreateAttempt("adapt", 2)]
