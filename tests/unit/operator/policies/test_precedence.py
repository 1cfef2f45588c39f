"""The order of `JOB_POLICIES`, each pair with a job about which both have something to say."""

import itertools
from typing import Any

import pytest

from kompress_api.reasons import Reason
from kompress_api.status import Phase
from kompress_operator.observed import Observed, Obstacle
from kompress_operator.policies import ATTEMPT_POLICIES, JOB_POLICIES
from kompress_operator.policies.verdict import Course, Verdict
from kompress_operator.progress import record_ends
from kompress_operator.reconcile import reconcile
from kompress_operator.times import rfc3339
from kompress_operator.view import take_stock
from unit.operator.builders import NOW, attempt, complete, entry, fresh, job, observed, running, succeeded

REFUSED = Obstacle(kind="Job", name="x", reason=Reason.CREATE_REFUSED, message="no", passing=False)
PASSING = Obstacle(kind="Job", name="x", reason=Reason.NAME_TAKEN, message="later", passing=True)
OVER = {"activeDeadlineSeconds": 50}
SUSPENDED = {"suspend": True}
FINISHED = {"phase": Phase.COMPLETE, "finished_at": rfc3339(NOW - 5)}
FAILED = entry("adapt", "Failed", attempt(1, "MethodRefused", exit_code=78))
ENDED = (succeeded("adapt"), succeeded("slim"))

ROWS: list[tuple[str, Observed, str]] = [
    ("finished, and an object is refused", observed(stages=ENDED, status=FINISHED, obstacles=(REFUSED,)), "finished"),
    ("refused, and the spec can't be merged", fresh(spec={"output": None}, obstacles=(REFUSED,)), "refused"),
    ("not mergeable, and suspended for another reason", fresh(spec={"unheardOf": 1, **SUSPENDED}), "not_mergeable"),
    (
        "the preflight failed, and the deadline is over",
        observed(stages=(entry("preflight", "Failed", attempt(1, "X")),), spec=OVER),
        "preflight_failed",
    ),
    ("a stage failed, and the deadline is over", observed(stages=(FAILED,), spec=OVER), "stage_failed"),
    ("a stage failed, and the job is suspended", observed(stages=(FAILED,), spec=SUSPENDED), "stage_failed"),
    (
        "the deadline is over, and the job is suspended",
        observed(stages=(running("adapt"),), attempts=(job("adapt"),), spec={**OVER, **SUSPENDED}),
        "active_deadline",
    ),
    (
        "the deadline is over, and a restart is due",
        observed(stages=(entry("adapt", "BackingOff", attempt(1, "X")),), spec=OVER),
        "active_deadline",
    ),
    (
        "the report has ended, and the job is suspended",
        observed(complete("report", report="s3://r"), stages=(*ENDED, running("report")), spec=SUSPENDED),
        "conclude",
    ),
    ("suspended, and the report is due", observed(stages=ENDED, spec=SUSPENDED), "suspend"),
    ("suspended, and an obstacle may pass", observed(obstacles=(PASSING,), spec=SUSPENDED), "suspend"),
    ("suspended, and a stage is due", observed(spec=SUSPENDED), "suspend"),
    ("all stages have ended", observed(stages=ENDED), "report"),
    ("an obstacle may pass, and a stage is due", observed(obstacles=(PASSING,)), "blocked"),
    ("the preflight is due, and stages are", observed(stages=(entry("preflight", "Pending"),)), "preflight_first"),
    ("a stage is due", observed(), "order"),
]


def first_word(seen: Observed) -> tuple[str, Verdict]:
    view = take_stock(seen, NOW)
    view = view if view.status.phase.finished else record_ends(view, NOW)
    said = ((policy.__name__, policy(view, NOW)) for policy in JOB_POLICIES)
    return next((name, verdict) for name, verdict in said if verdict is not None)


@pytest.mark.parametrize(("what", "seen", "policy"), ROWS, ids=[what for what, _, _ in ROWS])
def test_who_speaks_first(what: str, seen: Observed, policy: str) -> None:
    assert first_word(seen)[0] == policy


def test_every_policy_has_a_row_in_the_order_of_the_tuple() -> None:
    rows = [name for name, _ in itertools.groupby(policy for _, _, policy in ROWS)]
    assert rows == [policy.__name__ for policy in JOB_POLICIES]


def test_after_a_failure_the_later_policies_still_speak() -> None:
    """A failed job that is suspended does not start its report; resumed, it does."""
    held = reconcile(observed(stages=(FAILED,), spec=SUSPENDED), NOW)
    assert (held.actions, held.status.phase) == ((), Phase.SUSPENDED)
    assert first_word(observed(stages=(FAILED, entry("slim", "Skipped"))))[1].course is Course.FAIL


def test_the_order_of_attempt_policies() -> None:
    """A result counts whatever came after it; a firm deadline comes before one that only means another try."""
    assert [policy.__name__ for policy in ATTEMPT_POLICIES] == ["succeeded", "failed", "vanished", "report_deadline", "start_deadline"]
    deleted_after_success: Any = complete("adapt")
    seen = observed(deleted_after_success, stages=(running("adapt"),))
    stage = reconcile(seen, NOW).status.stage("adapt")
    assert stage is not None and stage.state == "Succeeded"
