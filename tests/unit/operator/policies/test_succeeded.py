"""What a stage made is in the status, or it is made again."""

from kompress_api.status import PlanStatus
from kompress_operator.actions import CreateAttempt
from unit.operator.builders import NOW, actions, after, attempt, complete, entry, job, observed, pod, running, succeeded


def test_the_result_is_what_rank_0_said_and_the_next_stage_starts() -> None:
    seen = observed(complete("adapt", metrics={"accuracy": 0.9}, mlflow_run_id="run7"), stages=(running("adapt"),))
    assert actions(seen) == [CreateAttempt("slim", 1)]
    result = after(seen, "adapt").result
    assert result is not None
    assert (result.artifact, result.metrics, result.mlflow_run_id) == ("s3://models/flowers/artifacts/adapt", {"accuracy": 0.9}, "run7")


def test_the_next_stage_does_not_wait_until_the_job_is_called_complete() -> None:
    first, second = complete("adapt").pods or (), (pod(1),)
    half = job("adapt", nodes=2, ready=1, pods=first + second)
    assert actions(observed(half, stages=(running("adapt"),))) == []
    both = job("adapt", nodes=2, ready=1, pods=(*first, pod(1, exit_code=0)))
    assert actions(observed(both, stages=(running("adapt"),))) == [CreateAttempt("slim", 1)]


def test_success_without_a_result_is_a_failure() -> None:
    silent = job("adapt", complete=True, ready=0, pods=(pod(0, exit_code=0, finished_at=NOW - 1),))
    last = after(observed(silent, stages=(running("adapt"),)), "adapt").attempts[-1]
    assert (last.outcome, last.spent_restart) == ("ProcessFailed", True)


def test_what_was_to_be_reused_and_is_gone_starts_in_full_for_free() -> None:
    seen = observed(complete("adapt", hit=False), stages=(running("adapt", reuse=True),), status={"plan": plan(adapt=True)})
    assert actions(seen) == [CreateAttempt("adapt", 2, reuse=False)]
    last = after(seen, "adapt")
    assert [a.outcome for a in last.attempts] == ["ReuseMissed", ""]
    assert last.spent_restarts == []


def test_a_preflight_brings_the_plan() -> None:
    said = complete(
        "preflight", plan="s3://models/plan.json", plan_digest="sha256:p", hits={"adapt": True}, keys={"adapt": "ab"}, parent_run_id="p1"
    )
    seen = observed(said, stages=(running("preflight"),), status={"plan": None})
    assert actions(seen) == [CreateAttempt("adapt", 1, reuse=True)]


def test_a_reuse_that_was_interrupted_is_tried_again_as_reuse() -> None:
    seen = observed(stages=(entry("adapt", "BackingOff", attempt(1, "Evicted", reuse=True)),), status={"plan": plan(adapt=True)})
    assert actions(seen) == [CreateAttempt("adapt", 2, reuse=True)]


def test_a_stage_that_succeeded_is_not_touched_again() -> None:
    seen = observed(complete("adapt"), stages=(succeeded("adapt"), running("slim")), attempts=(complete("adapt"), job("slim")))
    assert actions(seen) == []


def plan(**hits: bool) -> PlanStatus:
    return PlanStatus(uri="s3://models/plan.json", hits=hits)
