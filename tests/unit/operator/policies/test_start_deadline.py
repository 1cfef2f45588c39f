"""Pods that can't start are named within a deadline, instead of pending for ever."""

import pytest

from kompress_api.status import Attempt, StageState
from kompress_operator.reconcile import reconcile
from unit.operator.builders import NOW, after, job, observed, pod, running

LATE = {"ready": 0, "started": NOW - 600}


def last(**fields: object) -> Attempt:
    return after(observed(job("adapt", **(LATE | fields)), stages=(running("adapt", ago=600),)), "adapt").attempts[-1]


@pytest.mark.parametrize(
    ("waiting", "outcome"),
    [
        (pod(0, started=False, waiting="ImagePullBackOff", waiting_message="not found"), "ImagePullBackOff"),
        (pod(0, started=False, scheduled=False, waiting="Unschedulable", waiting_message="0/2 nodes"), "Unschedulable"),
        (pod(0, started=False, waiting="CreateContainerConfigError", waiting_message="secret missing"), "StartupDeadlineExceeded"),
    ],
)
def test_what_a_pod_waits_for_is_named(waiting: object, outcome: str) -> None:
    found = last(pods=(waiting,))
    assert found.outcome == outcome
    assert waiting.waiting_message in found.message  # type: ignore[attr-defined]


def test_half_a_gang_is_late_too() -> None:
    assert last(nodes=2, ready=1, pods=(pod(0), pod(1, started=False))).outcome == "StartupDeadlineExceeded"


def test_a_gang_that_ran_once_is_not_late_when_a_node_falls_silent() -> None:
    assert last(nodes=2, ready=1, pods=(pod(0), pod(1))).outcome == ""


def test_a_job_that_a_queue_holds_back_is_not_late() -> None:
    seen = observed(job("adapt", **(LATE | {"queued": True, "started": None})), stages=(running("adapt", ago=6000),))
    decision = reconcile(seen, NOW)
    assert decision.status.conditions[0].reason == "Queued"
    assert decision.status.stage("adapt").state is StageState.RUNNING  # type: ignore[union-attr]


def test_what_is_waited_for_is_shown_long_before_the_deadline() -> None:
    waiting = pod(0, started=False, waiting="ErrImagePull", waiting_message="no such image")
    decision = reconcile(observed(job("adapt", started=NOW - 20, ready=0, pods=(waiting,)), stages=(running("adapt"),)), NOW)
    assert "no such image" in decision.status.conditions[0].message
    assert decision.requeue_after == 15


def test_what_every_pod_waits_for_at_first_is_not_worth_a_word() -> None:
    waiting = pod(0, started=False, waiting="ErrImagePull", waiting_message="no such image")
    decision = reconcile(observed(job("adapt", started=NOW - 5, ready=0, pods=(waiting,)), stages=(running("adapt"),)), NOW)
    assert "no such image" not in decision.status.conditions[0].message


def test_the_operator_comes_back_for_the_deadline() -> None:
    seen = observed(job("adapt", started=NOW - 590, ready=0, pods=(pod(0, started=False),)), stages=(running("adapt"),))
    assert reconcile(seen, NOW).requeue_after == 10
