"""The deadline counts running time only, ends what runs, and lets the report still speak."""

from kompress_api.status import StageState
from kompress_operator.actions import CreateAttempt
from kompress_operator.reconcile import reconcile
from kompress_operator.times import rfc3339
from unit.operator.builders import NOW, actions, after, attempt, entry, job, observed, running, succeeded

DEADLINE = {"activeDeadlineSeconds": 100}


def test_stages_that_run_are_ended_and_the_rest_is_skipped() -> None:
    decision = reconcile(observed(job("adapt"), stages=(running("adapt"),), spec=DEADLINE), NOW)
    states = {entry.name: entry.state for entry in decision.status.stages}
    assert (states["adapt"], states["slim"], states["report"]) == (StageState.FAILED, StageState.SKIPPED, StageState.PENDING)
    assert decision.status.stage("adapt").attempts[-1].outcome == "DeadlineExceeded"  # type: ignore[union-attr]
    assert decision.actions == ()  # the observed status must hold the outcome first


def test_it_is_not_over_a_second_before() -> None:
    decision = reconcile(observed(job("adapt"), stages=(running("adapt"),), spec=DEADLINE), NOW - 1)
    assert decision.status.stage("adapt").state is StageState.RUNNING  # type: ignore[union-attr]
    assert decision.requeue_after == 1


def test_time_spent_suspended_is_not_counted() -> None:
    seen = observed(job("adapt"), stages=(running("adapt"),), spec=DEADLINE, status={"suspended_seconds": 30.0})
    assert reconcile(seen, NOW).requeue_after == 30


def test_it_stands_still_while_suspended() -> None:
    seen = observed(spec={**DEADLINE, "suspend": True}, status={"suspended_at": rfc3339(NOW - 50)})
    decision = reconcile(seen, NOW + 10_000)
    assert (decision.status.phase, decision.requeue_after) == ("Suspended", None)


def test_the_report_has_its_own_time() -> None:
    seen = observed(job("report"), stages=(succeeded("adapt"), succeeded("slim"), running("report")), spec=DEADLINE)
    assert after(seen, "report", NOW + 200).state is StageState.RUNNING


def test_a_deadline_beats_a_restart() -> None:
    waiting = entry("adapt", "BackingOff", attempt(1, "ValueError"), retry_at=rfc3339(NOW))
    assert actions(observed(stages=(waiting,), spec=DEADLINE)) == [CreateAttempt("report", 1)]
