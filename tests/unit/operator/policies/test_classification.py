"""The user reads the cause, not its consequences: the first primary error of all ranks, and whether another attempt can help."""

import dataclasses

import pytest

from kompress_api.reasons import Reason
from kompress_api.status import Attempt, StageState
from kompress_operator.actions import DeleteAttempt
from kompress_operator.observed import Observed, ObservedPod
from kompress_operator.policies.classification import LAST_WORDS_SECONDS
from kompress_operator.reconcile import reconcile
from kompress_operator.times import rfc3339
from unit.operator.builders import NOW, actions, after, attempt, crashed, entry, failed, job, observed, pod, running


def outcome(*pods: object, **fields: object) -> Attempt:
    return after(observed(failed("adapt", 1, *pods, **fields), stages=(running("adapt"),)), "adapt").attempts[-1]  # type: ignore[arg-type]


def test_the_earliest_error_is_the_root_cause() -> None:
    found = outcome(crashed(0, at=4.0, reason="LaterError"), crashed(1, at=4.000001, reason="FirstError"))
    assert (found.outcome, found.rank, found.pod, found.node, found.exit_code) == ("FirstError", 1, "pod-1", "node1", 1)


def test_microseconds_decide_not_the_seconds_of_the_kubelet() -> None:
    first = crashed(1, at=3, reason="FirstError", time_us=int((NOW - 9) * 1e6))
    assert outcome(crashed(0, at=8, reason="LaterError"), first).outcome == "FirstError"


def test_an_aborted_collective_never_wins_over_a_primary_error() -> None:
    assert (
        outcome(crashed(0, at=9, secondary=True, reason="DistBackendError"), crashed(1, at=5, reason="ValueError")).outcome == "ValueError"
    )


def test_an_aborted_collective_alone_is_what_is_shown() -> None:
    assert outcome(crashed(0, secondary=True, reason="DistBackendError")).outcome == "DistBackendError"


def test_a_kill_for_memory_has_no_message_and_is_named() -> None:
    killed = pod(0, exit_code=137, oom=True, finished_at=NOW - 9)
    found = outcome(killed, crashed(1, at=5, secondary=True))
    assert (found.outcome, found.exit_code, found.pod) == ("OOMKilled", 137, "pod-0")


def test_siblings_that_were_stopped_do_not_hide_the_cause() -> None:
    stopped = pod(0, exit_code=143, finished_at=NOW - 9, delete_by=NOW + 20)
    assert outcome(stopped, pod(1, exit_code=1, finished_at=NOW - 5)).pod == "pod-1"


def test_the_end_of_the_log_speaks_for_a_process_that_could_not() -> None:
    assert "core dumped" in outcome(pod(0, exit_code=139, finished_at=NOW - 5, last_words="core dumped")).message


def test_a_disruption_wins_over_the_interruption_that_it_brings() -> None:
    preempted = pod(0, disruption=Reason.PREEMPTED, disrupted_at=NOW - 9, finished_at=NOW - 3)
    found = outcome(preempted, crashed(1, code=75, at=4, reason="Interrupted", checkpoint_step=3))
    assert (found.outcome, found.spent_restart, found.checkpoint_step) == ("Preempted", False, 3)


def test_an_error_before_the_disruption_is_the_cause() -> None:
    preempted = pod(0, disruption=Reason.PREEMPTED, disrupted_at=NOW - 3, finished_at=NOW - 1)
    assert outcome(preempted, crashed(1, at=6, reason="ValueError")).outcome == "ValueError"


def test_a_disruption_that_was_seen_counts_when_its_pod_is_gone() -> None:
    seen = observed(failed("adapt"), stages=(running("adapt", disruption="Evicted", pod="pod-0", node="node7"),))
    last = after(seen, "adapt").attempts[-1]
    assert (last.outcome, last.pod, last.node, last.spent_restart) == ("Evicted", "pod-0", "node7", False)


def test_a_disruption_is_noted_while_the_attempt_still_runs() -> None:
    going = pod(0, disruption=Reason.PREEMPTED, disrupted_at=NOW - 1, delete_by=NOW + 59)
    last = after(observed(failed("adapt", 1, going, failed=False, terminating=1), stages=(running("adapt"),)), "adapt").attempts[-1]
    assert (last.disruption, last.pod, last.outcome) == ("Preempted", "pod-0", "")


@pytest.mark.parametrize("code", [65, 66, 77, 78])
def test_a_permanent_exit_code_is_not_tried_again(code: int) -> None:
    assert after(observed(failed("adapt", 1, crashed(code=code)), stages=(running("adapt"),)), "adapt").state is StageState.FAILED


@pytest.mark.parametrize("code", [1, 69, 70, 74, 75, 137])
def test_any_other_is(code: int) -> None:
    assert after(observed(failed("adapt", 1, crashed(code=code)), stages=(running("adapt"),)), "adapt").state is StageState.BACKING_OFF


def failing(*pods: ObservedPod, ago: float | None = None) -> Observed:
    """A gang that runs on with a failed pod, which the operator has known for `ago` seconds."""
    job = failed("adapt", 1, *pods, failed=False, failed_pods=1, ready=len(pods) - 1)
    since = rfc3339(NOW - ago) if ago is not None else None
    return observed(job, stages=(running("adapt", failing_since=since),))


def test_a_gang_with_a_failed_pod_waits_for_the_words_of_the_others() -> None:
    seen = failing(crashed(0, secondary=True), pod(1))
    stage = after(seen, "adapt")
    assert (stage.state, stage.attempts[-1].failing_since) == (StageState.RUNNING, rfc3339(NOW))
    again = dataclasses.replace(seen, status=reconcile(seen, NOW).status)
    assert reconcile(again, NOW).requeue_after == LAST_WORDS_SECONDS


def test_a_failure_is_timed_from_when_it_was_seen_whatever_the_clock_of_the_node_says() -> None:
    seen = failing(crashed(0, at=-3600), pod(1), ago=5)
    assert reconcile(seen, NOW).requeue_after == LAST_WORDS_SECONDS - 5


def test_but_it_does_not_hold_its_machines_for_a_peer_that_never_notices() -> None:
    """The outcome comes first, and only what the others can read of it ends the pods."""
    seen = failing(crashed(0, reason="ValueError"), pod(1), ago=LAST_WORDS_SECONDS)
    decision = reconcile(seen, NOW)
    (last,) = decision.status.stage("adapt").attempts  # type: ignore[union-attr]
    assert (last.outcome, last.pod, last.failing_since, decision.actions) == ("ValueError", "pod-0", None, ())
    assert actions(dataclasses.replace(seen, status=decision.status)) == [DeleteAttempt("flowers-adapt-1", "uid-adapt-1")]


def test_nor_for_a_pod_on_a_lost_node() -> None:
    last = after(failing(crashed(0, secondary=True), pod(1, delete_by=NOW - 31), ago=5), "adapt").attempts[-1]
    assert (last.outcome, last.pod) == ("NodeLost", "pod-1")


def test_the_message_tells_field_and_cure() -> None:
    told = crashed(code=78, message="no such model", hint="try resnet18", field="spec.model.source")
    assert outcome(told).message == "spec.model.source: no such model (try resnet18)"


def test_nothing_known_at_all_says_what_the_controller_says() -> None:
    found = outcome(message="BackoffLimitExceeded: Job has reached the specified backoff limit")
    assert (found.outcome, "BackoffLimitExceeded" in found.message) == ("ProcessFailed", True)


def test_entries_of_the_past_stay_as_they_were() -> None:
    before = attempt(1, "ValueError", message="old")
    seen = observed(failed("adapt", 2, crashed()), stages=(entry("adapt", "Running", before, attempt(2)),))
    assert after(seen, "adapt").attempts[0] == before


def test_the_pods_of_a_lost_node_keep_the_operator_waiting_and_not_busy() -> None:
    """They stay until the node comes back; looked at again and again they would cost a core."""
    lost = job("adapt", 1, deleting=NOW - 200, pods=(pod(0, delete_by=NOW - 100),))
    decision = reconcile(observed(lost, job("adapt", 2), stages=(running("adapt", attempt(1, "NodeLost")),)), NOW)
    assert decision.requeue_after is None or decision.requeue_after > 1
