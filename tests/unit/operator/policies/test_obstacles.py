"""A name that is taken, or a refused object, is told and not tried for ever; what passes by itself is waited for."""

from kompress_api.reasons import Reason
from kompress_api.status import Phase
from kompress_operator.observed import Obstacle
from kompress_operator.reconcile import reconcile
from unit.operator.builders import NOW, fresh, observed, succeeded


def obstacle(reason: Reason, passing: bool, stage: str = "") -> Obstacle:
    return Obstacle(kind="Job", name="flowers-adapt-1", reason=reason, message="why", passing=passing, stage=stage)  # type: ignore[arg-type]


def test_a_refused_object_fails_the_job_with_the_words_of_the_api_server() -> None:
    decision = reconcile(fresh(obstacles=(obstacle(Reason.CREATE_REFUSED, False),)), NOW)
    failed = next(c for c in decision.status.conditions if c.type == "Failed")
    assert (decision.status.phase, failed.reason, failed.message, decision.actions) == (
        Phase.FAILED,
        "CreateRefused",
        "Job flowers-adapt-1: why",
        (),
    )


def test_a_leftover_of_a_deleted_job_is_waited_for() -> None:
    decision = reconcile(fresh(obstacles=(obstacle(Reason.NAME_TAKEN, True),)), NOW)
    running = decision.status.conditions[0]
    assert (decision.actions, decision.requeue_after, running.status, running.reason) == ((), 2, "False", "NameTaken")


def test_a_report_that_can_not_be_made_is_the_reports_failure() -> None:
    refused = obstacle(Reason.CREATE_REFUSED, False, stage="report")
    decision = reconcile(observed(stages=(succeeded("adapt"), succeeded("slim")), obstacles=(refused,)), NOW)
    assert decision.status.conditions[-1].reason == "ReportFailed"
