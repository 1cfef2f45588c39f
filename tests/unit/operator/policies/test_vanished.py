"""A Job that someone else deleted is started again, and that is said."""

from kompress_api.status import StageState
from unit.operator.builders import NOW, after, job, observed, running


def test_a_missing_job_spends_a_restart() -> None:
    found = after(observed(stages=(running("adapt"),)), "adapt")
    assert (found.state, found.attempts[-1].outcome, found.attempts[-1].spent_restart) == (StageState.BACKING_OFF, "JobDeleted", True)


def test_so_does_one_that_is_being_deleted() -> None:
    assert after(observed(job("adapt", deleting=NOW - 1), stages=(running("adapt"),)), "adapt").attempts[-1].outcome == "JobDeleted"
