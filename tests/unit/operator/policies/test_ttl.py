"""A finished job is left alone until its TTL, then only the CompressionJob stays."""

from kompress_api.status import Condition, Phase
from kompress_operator.actions import DeleteAttempt, DeleteService
from kompress_operator.reconcile import reconcile
from kompress_operator.times import rfc3339
from unit.operator.builders import NOW, actions, complete, entry, job, observed, succeeded

DONE = {
    "phase": Phase.COMPLETE,
    "finished_at": rfc3339(NOW),
    "observed_generation": 1,
    "conditions": [Condition(type="Complete", status="True", reason="GoalsMet", last_transition_time=rfc3339(NOW))],
}
STAGES = (succeeded("adapt"), succeeded("slim"), entry("report", "Succeeded"))


def test_nothing_happens_before() -> None:
    seen = observed(complete("adapt"), stages=STAGES, status=DONE, spec={"ttlSecondsAfterFinished": 60})
    decision = reconcile(seen, NOW + 59)
    assert (decision.actions, decision.status, decision.requeue_after) == ((), seen.status, 1)


def test_then_jobs_and_service_go_and_the_status_stays() -> None:
    seen = observed(complete("adapt"), stages=STAGES, status=DONE, spec={"ttlSecondsAfterFinished": 60})
    assert actions(seen, NOW + 60) == [DeleteAttempt("flowers-adapt-1", "uid-adapt-1"), DeleteService("flowers")]
    assert reconcile(seen, NOW + 60).status == seen.status


def test_and_then_there_is_nothing_to_do_any_more() -> None:
    seen = observed(stages=STAGES, status=DONE, service=False, spec={"ttlSecondsAfterFinished": 60})
    decision = reconcile(seen, NOW + 10_000)
    assert (decision.actions, decision.requeue_after) == ((), None)


def test_an_attempt_that_still_runs_when_the_job_has_ended_is_stopped() -> None:
    assert actions(observed(job("slim", 9), stages=STAGES, status=DONE)) == [DeleteAttempt("flowers-slim-9", "uid-slim-9")]
