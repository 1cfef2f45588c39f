"""The recorder decides what is written down as met: it must not flatter."""

import pytest

from perf.path import difference
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
        (Goal(1.0, "at_most", "points lost"), 0.9, 1.02, False),
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


def test_the_interval_of_a_difference_of_shares_is_newcombes() -> None:
    """His own example: 56 of 70 against 48 of 80 (Statistics in Medicine 17, 1998, table II, example a). Both shares of 80 and 70
    samples bound ours, which has one number of samples for both."""
    low, high = difference(0.8, 0.6, 75)
    assert low == pytest.approx(0.0524, abs=0.005)
    assert high == pytest.approx(0.3339, abs=0.01)
