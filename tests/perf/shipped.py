"""What a job's final model gains over the fine-tuned one, as its export stage measured both: interleaved, one thread."""

from collections.abc import Iterator
from typing import Any

from kompress_api.goals import BASELINE_PREFIX, figure_name
from perf.recorder import Goal, Told, difference

LOST = Goal(1.0, "at_most", "points lost")


def gains(what: str, metrics: dict[str, float], details: dict[str, Any], *, faster: float) -> Iterator[Told]:
    """Latency at each batch size, and accuracy; from the manifest of an export."""
    for found in details["speedups"]:
        first = found is details["speedups"][0]
        figure = "latencyP50Ms" if first else figure_name("latencyP50Ms", found["format"], found["target"], found["batchSize"])
        interval, goal = (found["low"], found["high"]), Goal(faster, "at_least")
        yield Told(
            what=f"latency of {what}, batch {found['batchSize']}",
            unit="ms",
            value=metrics[figure],
            peer="the fine-tuned one (higher is faster)",
            peer_value=metrics[BASELINE_PREFIX + figure],
            compared=found["value"],
            interval=interval,
            goal=goal,
            met=goal.reached(*interval),
        )
    accuracy, before, samples = metrics["accuracy"], metrics[BASELINE_PREFIX + "accuracy"], details["samples"]
    lost = 100 * (before - accuracy)
    low, high = difference(before, accuracy, samples)
    yield Told(
        what=f"accuracy of {what}, {samples} test samples",
        unit="right",
        value=accuracy,
        peer="the fine-tuned one; by point estimate, as goals are",
        peer_value=before,
        compared=lost,
        interval=(100 * low, 100 * high),
        goal=LOST,
        met=LOST.reached(lost, lost),
    )
