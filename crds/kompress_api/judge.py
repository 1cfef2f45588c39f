"""The one function that judges a job's goals. `report` and the operator both call it."""

import itertools
from collections.abc import Mapping

from kompress_api.dag import baseline_of, chain
from kompress_api.goals import BASELINE_PREFIX, SOURCE_PREFIX, Goal, GoalResult, holds
from kompress_api.job import CompressionJobSpec
from kompress_api.names import SOURCE

Figures = Mapping[str, Mapping[str, float]]
"""Stage name -> figure name -> finite value."""


def judge(spec: CompressionJobSpec, figures: Figures) -> list[GoalResult]:
    """Judge every goal by point estimate; a figure that is missing makes a goal missed.

    The loss of a metric is told for each stage along first inputs from the baseline to the goal's stage.
    """
    return [_judge_one(goal, spec, figures) for goal in spec.goals]


def _judge_one(goal: Goal, spec: CompressionJobSpec, figures: Figures) -> GoalResult:
    stage = next((entry for entry in spec.stages if entry.name == goal.stage), spec.stages[-1])
    own, name = figures.get(stage.name, {}), goal.figure(stage.export)
    value, reference = own.get(name), own.get(BASELINE_PREFIX + name)
    if reference is None and not goal.measured_on_target:
        reference = figure_of_stage(figures, baseline_of(spec), goal.metric)
    steps = [(entry, figure_of_stage(figures, entry, goal.metric)) for entry in chain(spec, stage.name)]
    known = [(entry, figure) for entry, figure in steps if figure is not None]
    return GoalResult(
        metric=goal.metric,
        bound=goal.bound(),
        stage=stage.name,
        value=value,
        baseline=reference if goal.relative else None,
        met=value is not None and holds(goal, value, reference),
        loss={entry: figure - before for (_, before), (entry, figure) in itertools.pairwise(known)},
    )


def figure_of_stage(figures: Figures, stage: str, metric: str) -> float | None:
    """A stage's plain figure; those of `source` are told by any stage that started from it."""
    if stage != SOURCE:
        return figures.get(stage, {}).get(metric)
    told = (own.get(SOURCE_PREFIX + metric) for own in figures.values())
    return next((value for value in told if value is not None), None)
