"""The status that users read: stable, within its limits, and true."""

from kompress_api.status import Condition, StageState
from kompress_operator.reconcile import reconcile
from kompress_operator.times import epoch, rfc3339
from unit.operator.builders import NOW, attempt, complete, crashed, decided, entry, failed, job, observed, running, succeeded


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    since = Condition(type="Running", status="True", reason="StageRunning", last_transition_time=rfc3339(NOW - 500))
    seen = observed(complete("adapt"), stages=(running("adapt"),), status={"conditions": [since]})
    between = reconcile(seen, NOW).status.conditions[0]
    assert (between.message, between.last_transition_time) == ("next: slim", rfc3339(NOW - 500))
    found = decided(seen).status.conditions[0]
    assert (found.message, found.last_transition_time) == ("slim (attempt 1)", rfc3339(NOW - 500))
    held = reconcile(observed(failed("adapt", 1, crashed()), stages=(running("adapt"),), status={"conditions": [since]}), NOW)
    assert (held.status.conditions[0].status, held.status.conditions[0].last_transition_time) == ("False", rfc3339(NOW))


def test_a_pass_that_finds_nothing_new_writes_nothing() -> None:
    first = reconcile(observed(job("adapt"), stages=(running("adapt"),)), NOW)
    again = observed(job("adapt"), status=dict(first.status))
    second = reconcile(again, NOW + 300)
    assert (second.actions, second.status) == ((), again.status)


def test_the_summary_shows_the_last_stage_against_its_baseline() -> None:
    stages = (succeeded("adapt", accuracy=0.98, modelSizeBytes=40e6), succeeded("slim", accuracy=0.97, modelSizeBytes=10e6))
    found = reconcile(observed(stages=stages), NOW).status.summary
    assert (found.stage, found.progress, found.accuracy, found.smaller, found.faster) == ("report", "2/2", 0.97, 4.0, None)


def test_the_summary_of_a_recogniser_has_its_wer() -> None:
    """`kubectl get -o wide` would show nothing of how good it is."""
    found = reconcile(observed(stages=(succeeded("adapt"), succeeded("slim", wer=0.12))), NOW).status.summary
    assert (found.wer, found.accuracy) == (0.12, None)


def test_times_go_to_text_and_back() -> None:
    assert epoch(rfc3339(NOW + 0.9)) == NOW
    assert epoch("2027-01-15T10:00:00.5+02:00") == NOW + 0.5


def test_a_skipped_stage_is_not_the_one_that_is_shown() -> None:
    stages = (entry("adapt", "Failed", attempt(2, "ValueError")), entry("slim", "Skipped"))
    found = reconcile(observed(stages=stages), NOW).status
    assert (found.summary.stage, found.stage("slim").state) == ("report", StageState.SKIPPED)  # type: ignore[union-attr]
