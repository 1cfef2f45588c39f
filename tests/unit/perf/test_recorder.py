"""The recorder decides what is written down as met: it must not flatter."""

import pytest

from perf.recorder import Goal, Result


def result(goal: Goal, *samples: tuple[float, float]) -> Result:
    return Result("what", "s", "peer", goal, samples)


@pytest.mark.parametrize(
    ("goal", "low", "high", "reached"),
    [
        (Goal(1.0, "at_least"), 0.975, 1.1, True),
        (Goal(1.0, "at_least"), 0.96, 1.1, False),
        (Goal(5.0, "at_least"), 4.9, 6.0, False),
        (Goal(5.0, "at_least"), 5.0, 6.0, True),
        (Goal(1.15, "at_most"), 1.0, 1.2, False),
        (Goal(1.15, "at_most"), 1.0, 1.14, True),
    ],
)
def test_a_goal_holds_when_the_whole_interval_reaches_it(goal: Goal, low: float, high: float, reached: bool) -> None:
    assert goal.reached(low, high) is reached


def test_the_ratio_is_taken_pair_by_pair() -> None:
    """A machine that slows down in mid-run slows both: the ratio must not move."""
    drifting = result(Goal(2.0, "at_least"), (2, 1), (4, 2), (8, 4), (16, 8))
    assert drifting.ratio == pytest.approx(2.0)
    assert drifting.interval == pytest.approx((2.0, 2.0))


def test_noise_widens_the_interval() -> None:
    noisy = result(Goal(1.0, "at_least"), (1, 1), (2, 1), (0.5, 1))
    low, high = noisy.interval
    assert low < 0.6 and high > 1.6 and not noisy.met
