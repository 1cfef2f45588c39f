"""One stage failed for good: its siblings stop, the rest is skipped, and the reason is the stage's."""

from kompress_api.status import Phase, StageState
from kompress_operator.actions import CreateAttempt, DeleteAttempt
from kompress_operator.reconcile import reconcile
from unit.operator.builders import NOW, actions, attempt, crashed, entry, failed, job, observed, running

PARALLEL = {
    "stages": [
        {"name": "a", "fineTune": {"strategy": "Full", "epochs": 1}},
        {"name": "b", "from": "source", "fineTune": {"strategy": "Full", "epochs": 1}},
        {"name": "c", "from": "a", "prune": {"pruningRatio": 0.5}},
    ],
    "maxParallelStages": 2,
}


def test_siblings_are_cancelled_and_the_rest_is_skipped() -> None:
    seen = observed(failed("a", 1, crashed(code=78)), job("b"), stages=(running("a"), running("b")), spec=PARALLEL)
    decision = reconcile(seen, NOW)
    states = {stage.name: stage.state for stage in decision.status.stages}
    assert states == {
        "preflight": StageState.SUCCEEDED,
        "a": StageState.FAILED,
        "b": StageState.SKIPPED,
        "c": StageState.SKIPPED,
        "report": StageState.PENDING,
    }
    assert decision.status.phase is Phase.REPORTING
    again = observed(failed("a", 1, crashed(code=78)), job("b"), status=dict(decision.status), spec=PARALLEL)
    assert actions(again) == [DeleteAttempt("flowers-b-1", "uid-b-1")]  # and no report before its pods are gone


def test_the_report_starts_when_the_siblings_are_gone() -> None:
    stages = (
        entry("a", "Failed", attempt(1, "MethodRefused", exit_code=78)),
        entry("b", "Skipped", attempt(1, "Cancelled")),
        entry("c", "Skipped"),
    )
    assert actions(observed(stages=stages, spec=PARALLEL)) == [CreateAttempt("report", 1)]


def test_a_preflight_that_fails_for_good_ends_the_job_without_report() -> None:
    refused = crashed(code=78, reason="UnknownModel", message="no such model")
    decision = reconcile(observed(failed("preflight", 1, refused), stages=(running("preflight"),)), NOW)
    failure = next(c for c in decision.status.conditions if c.type == "Failed")
    assert (decision.status.phase, failure.reason, failure.status, decision.actions) == (Phase.FAILED, "PreflightFailed", "True", ())
    assert "no such model" in failure.message
    assert {stage.state for stage in decision.status.stages[1:]} == {StageState.SKIPPED}
