"""The recorder decides what is written down as met: it must not flatter."""

import pytest

from perf.recorder import Goal, Level, Result, Unable, compared_shares, difference, interleaved, merged, table


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


def test_a_level_is_judged_by_our_own_figures_alone() -> None:
    """A peer that waits still longer must not excuse a loop that waits too long."""
    waits = Level("what", "%", "peer", Goal(2.0, "at_most", "%"), ((1.0, 50.0), (1.2, 60.0), (1.1, 70.0)))
    assert waits.record["ratio"] == pytest.approx(1.1) and waits.met
    assert not Level("what", "%", "peer", Goal(2.0, "at_most", "%"), ((1.0, 50.0), (3.0, 60.0), (1.1, 70.0))).met


@pytest.mark.parametrize(("ours", "theirs", "met"), [(0.97, 0.96, True), (0.96, 0.97, True), (0.90, 0.97, False)])
def test_an_accuracy_is_as_good_unless_the_whole_interval_says_that_it_is_worse(ours: float, theirs: float, met: bool) -> None:
    row = compared_shares("what", ours, "peer", theirs, 1080)
    assert row.met is met
    assert row.record["ratio"] == pytest.approx(100 * (ours - theirs))


def test_what_a_peer_can_not_do_is_said_in_the_table() -> None:
    """A missing row would look as if nobody had tried."""
    row = Unable("prune a ViT", "right", 0.97, "peer", "ValueError: no convolutions").record
    assert table([row]).splitlines()[-1] == "| prune a ViT | 0.97 right | peer can't: ValueError: no convolutions | | | |"


def test_a_part_that_is_measured_again_replaces_its_own_rows_only() -> None:
    """Hours of other rows would be lost, or stand twice."""
    old = [{"what": "a", "peer": "x", "value": 1}, {"what": "a", "peer": "y", "value": 2}, {"what": "b", "peer": "x", "value": 3}]
    new = [{"what": "a", "peer": "y", "value": 20}, {"what": "c", "peer": "x", "value": 4}]
    assert [row["value"] for row in merged(old, new)] == [1, 20, 3, 4]


def test_pairs_alternate_their_order() -> None:
    """A machine that gets slower would favour whoever always comes first."""
    order: list[str] = []
    assert list(interleaved(lambda: order.append("ours"), lambda: order.append("peers"), 3)) == [(None, None)] * 3
    assert order == ["ours", "peers", "peers", "ours", "ours", "peers"]
