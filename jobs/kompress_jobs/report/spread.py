"""How much of a figure is the seed's luck: the stages that `evaluation.seeds` has run several times (`evaluation/seeds.py`)."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kompress_api.goals import Goal, GoalResult, holds

SPREAD = ("accuracy", "wer", "cer", "recall", "f1", "top5", "loss")


@dataclass(frozen=True)
class Spread:
    """Of one figure of one stage."""

    metric: str
    runs: list[float]
    """Of each seed, the stage's own first."""
    mean: float
    deviation: float
    """Of a sample, n - 1."""
    low: float
    high: float
    """Least and greatest."""

    def dump(self) -> dict[str, Any]:
        """JSON."""
        return asdict(self)


def of_stage(details: Mapping[str, Any]) -> list[Spread]:
    """Empty where a stage was run once."""
    runs = values_of(details)
    return [
        Spread(metric, values, statistics.fmean(values), statistics.stdev(values), min(values), max(values))
        for metric in SPREAD
        if len(values := [run[metric] for run in runs if metric in run]) > 1
    ]


def values_of(details: Mapping[str, Any]) -> Sequence[Mapping[str, float]]:
    """The figures of each seed."""
    return [run["metrics"] for run in details.get("seeds", [])]


def of_goal(goal: Goal, result: GoalResult, details: Mapping[str, Any]) -> str:
    """For how many seeds of the goal's stage it holds; the baseline's figure stays."""
    runs = [run[goal.metric] for run in values_of(details) if goal.metric in run]
    if len(runs) < 2:
        return ""
    return f"; holds for {sum(holds(goal, value, result.baseline) for value in runs)} of {len(runs)} seeds"
