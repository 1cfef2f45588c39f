"""What a step sees depends on the seed and the step, never on the number of processes."""

import pytest
import torch

from kompress_jobs.chance import mix
from kompress_jobs.training.order import Order, learning_rate


def test_an_epoch_shows_every_sample_once_and_the_next_in_another_order() -> None:
    order = Order(samples=103, batch_size=10, epochs=2, seed=0)
    assert (order.steps_per_epoch, order.steps) == (10, 20)
    first, second = order.shuffled(0), order.shuffled(1)
    assert sorted(first.tolist()) == list(range(103))
    assert not torch.equal(first, second)
    seen = torch.cat([order.indices(step, first) for step in range(10)])
    assert len(seen.unique()) == 100


def test_a_small_data_set_makes_the_batch_smaller() -> None:
    order = Order(samples=7, batch_size=64, epochs=3, seed=0)
    assert (order.batch, order.steps) == (7, 3)


def test_seeds_of_steps_do_not_repeat() -> None:
    assert len({mix(seed, kind, step) for seed in range(5) for kind in range(3) for step in range(200)}) == 3000


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("Constant", [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("Linear", [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("Cosine", [1 / 3, 2 / 3, 1, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]),
    ],
)
def test_the_learning_rate_rises_and_falls(schedule: str, expected: list[float]) -> None:
    assert [learning_rate(schedule, step, 10, 0.2) for step in range(10)] == pytest.approx(expected, abs=1e-4)
