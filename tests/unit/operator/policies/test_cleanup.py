"""Nothing that could still be read is removed before its outcome is in the status that others see."""

from kompress_operator.actions import DeleteAttempt
from unit.operator.builders import NOW, actions, attempt, crashed, entry, failed, job, observed, running


def test_a_failed_attempt_stays_for_its_logs() -> None:
    assert (
        actions(
            observed(
                failed("adapt", 1, crashed()),
                stages=(entry("adapt", "BackingOff", attempt(1, "ValueError"), retry_at="2030-01-01T00:00:00Z"),),
            )
        )
        == []
    )


def test_an_attempt_whose_end_was_decided_is_stopped() -> None:
    late = entry("adapt", "BackingOff", attempt(1, "StartupDeadlineExceeded"), retry_at="2030-01-01T00:00:00Z")
    assert actions(observed(job("adapt"), stages=(late,))) == [DeleteAttempt("flowers-adapt-1", "uid-adapt-1")]


def test_one_that_is_being_deleted_is_not_deleted_again() -> None:
    late = entry("adapt", "BackingOff", attempt(1, "StartupDeadlineExceeded"), retry_at="2030-01-01T00:00:00Z")
    assert actions(observed(job("adapt", deleting=NOW - 1), stages=(late,))) == []


def test_attempts_that_the_status_no_longer_lists_are_removed() -> None:
    many = [attempt(n, "ValueError") for n in (1, *range(4, 13))]
    stage = running("adapt").model_copy(update={"attempts": [*many, attempt(13)], "attempts_cut": 2})
    seen = observed(
        failed("adapt", 1, crashed()), failed("adapt", 3, crashed()), failed("adapt", 4, crashed()), job("adapt", 13), stages=(stage,)
    )
    assert actions(seen) == [DeleteAttempt("flowers-adapt-3", "uid-adapt-3")]
