"""How sure a report can be: every stage beside the baseline, sample by sample, and what chance can do to each goal's verdict.

A goal is judged by its point estimate (`kompress_api.judge`); nothing here changes that. It says whether another test set of
the same kind might have judged otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kompress_api.goals import Goal, GoalResult, holds
from kompress_api.names import SOURCE
from kompress_api.stages.export import Export, Target
from kompress_jobs.measure import paired
from kompress_jobs.measure.paired import Comparison
from kompress_jobs.measure.predictions import BASELINE, OWN, Predictions, of_format
from kompress_jobs.measure.predictions import SOURCE as OF_SOURCE

EXACT = frozenset({"parameters", "macs", "modelSizeBytes"})
TIMED = frozenset({"latencyP50Ms", "throughputPerSecond"})
"""Their factor against the baseline has an interval: both were timed in turns."""
SURE = 0.975

Said = Mapping[str, Mapping[str, Predictions]]
"""Stage -> name (`measure.predictions`) -> what was said."""


class Pair(NamedTuple):
    """What is compared; either may be missing."""

    before: Predictions | None
    after: Predictions | None


@dataclass(frozen=True)
class Evidence:
    """Of one goal."""

    text: str
    sure: bool | None = None
    """Whether chance can be ruled out; None: there is none (a count), or nothing tells (one measurement)."""


def pair(said: Said, stage: str, baseline: str, form: str = "") -> Pair:
    """A stage's predictions and those of what it is compared with: the baseline as it was lowered beside it, else as it is.

    `form` is the format of an export, where it is not the first.
    """
    own = said.get(stage, {})
    lowered = own.get(of_format(BASELINE, form) if form else BASELINE)
    if baseline == SOURCE:
        plain = next((names[OF_SOURCE] for names in said.values() if OF_SOURCE in names), None)
    else:
        plain = said.get(baseline, {}).get(OWN)
    return Pair(plain if lowered is None else lowered, own.get(of_format(OWN, form) if form else OWN))


def comparisons(said: Said, stages: Sequence[str], baseline: str) -> dict[str, Comparison]:
    """Every stage but the baseline itself, where both sides have told what they said."""
    found = {name: compared(pair(said, name, baseline)) for name in stages if name != baseline}
    return {name: comparison for name, comparison in found.items() if comparison is not None}


def compared(sides: Pair) -> Comparison | None:
    """The two of a pair, where there are two."""
    return None if sides.before is None or sides.after is None else paired.compare(sides.before, sides.after)


def of_goal(
    goal: Goal,
    result: GoalResult,
    export: Export | None,
    details: Mapping[str, Any],
    sides: Pair,
    comparison: Comparison | None,
) -> Evidence:
    """How sure a verdict is. `details` are those of the goal's stage, `sides` and `comparison` of its format's predictions."""
    if result.value is None:
        return Evidence("not measured")
    if goal.metric in EXACT:
        return Evidence("a count, no chance in it")
    if goal.metric in TIMED and goal.min_improvement is not None and export is not None:
        return of_speed(goal, result, export, details)
    drawn = None
    if export is not None and target_of(goal, export).device is not export.targets[0].device:
        return Evidence("one measurement, no interval")  # what was said of each sample is the first target's
    if comparison is not None:
        drawn = comparison.draws.get(goal.metric)
    elif sides.after is not None and not goal.relative:
        own = paired.draws([sides.after]).get(goal.metric)
        drawn = None if own is None else own.repeat(2, axis=1)
    if drawn is None:
        return Evidence("one measurement, no interval")
    share = sum(holds(goal, float(after), float(before)) for before, after in drawn) / len(drawn)
    sure = share >= SURE if result.met else share <= 1 - SURE
    return Evidence(f"holds in {share * 100:.1f} % of test sets drawn anew from this one", sure)


def target_of(goal: Goal, export: Export) -> Target:
    """Where a goal is judged."""
    return next((entry for entry in export.targets if entry.key == goal.target), export.targets[0])


def of_speed(goal: Goal, result: GoalResult, export: Export, details: Mapping[str, Any]) -> Evidence:
    """From the interval of the factor between the two medians."""
    target = target_of(goal, export)
    place = {
        "format": str(goal.format or export.formats[0].type),
        "target": target.key,
        "batchSize": goal.batch_size or target.batch_sizes[0],
    }
    found = next((entry for entry in details.get("speedups", []) if place.items() <= entry.items()), None)
    if found is None or goal.min_improvement is None:
        return Evidence("one measurement, no interval")
    low, high = found["low"], found["high"]
    return Evidence(
        f"{found['value']:.2f} x faster, 95 % interval {low:.2f} to {high:.2f}",
        low >= goal.min_improvement if result.met else high < goal.min_improvement,
    )
