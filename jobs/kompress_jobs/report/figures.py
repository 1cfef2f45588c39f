"""What a report is made of: every stage's figures from its manifest, the verdict on the goals, and what got worse where.

Nothing is measured here. A stage that failed has no figures; a goal that needed them is missed.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from kompress_api.contract import StageInput, StageOutcome
from kompress_api.dag import baseline_of, chain
from kompress_api.errors import ArtifactCorrupt, ArtifactMissing
from kompress_api.goals import BASELINE_PREFIX, HIGHER_IS_BETTER, Goal, GoalResult, judged_by
from kompress_api.job import CompressionJobSpec
from kompress_api.judge import figure_of_stage, judge
from kompress_api.names import RESERVED_STAGES
from kompress_jobs.measure import predictions
from kompress_jobs.measure.paired import Comparison
from kompress_jobs.measure.predictions import Predictions
from kompress_jobs.report import elsewhere, evidence, spread
from kompress_jobs.report.elsewhere import Elsewhere
from kompress_jobs.report.evidence import Evidence
from kompress_jobs.report.spread import Spread
from kompress_jobs.storage import artifacts, files
from kompress_jobs.storage.artifacts import Commit
from kompress_jobs.storage.store import Store

Interval = tuple[float, float]
SHOWN = (
    "accuracy",
    "wer",
    "cer",
    "recall",
    "f1",
    "f1Micro",
    "meanAveragePrecision",
    "top5",
    "loss",
    "parameters",
    "macs",
    "modelSizeBytes",
    "latencyP50Ms",
    "latencyP99Ms",
    "peakMemoryBytes",
)
"""Columns of the table of stages, where any stage has the figure."""
QUALITY = ("accuracy", "wer", "cer", "recall", "f1", "f1Micro", "loss")
"""Of them, those of what a model answers that the summary has of the baseline too."""


@dataclasses.dataclass(frozen=True)
class StageFigures:
    """One stage of the report."""

    outcome: StageOutcome
    kind: str
    commit: Commit | None
    """What it made; None where it failed or never ran."""
    problem: str = ""
    """Why its manifest, or what stands beside its model, can't be read."""
    said: Mapping[str, Predictions] = dataclasses.field(default_factory=dict, repr=False)
    """What its models said of each test sample, by the names of `measure.predictions`."""

    @property
    def name(self) -> str:
        """Stage."""
        return self.outcome.name

    @property
    def metrics(self) -> Mapping[str, float]:
        """Flat figures."""
        return self.commit.metrics if self.commit else {}

    @property
    def details(self) -> Mapping[str, Any]:
        """All else."""
        return self.commit.details if self.commit else {}

    def interval(self, metric: str) -> Interval | None:
        """95 % interval of a figure."""
        found = self.details.get("intervals", {}).get(metric)
        return (float(found[0]), float(found[1])) if found else None


@dataclasses.dataclass(frozen=True)
class ClassChange:
    """Recall of one class before and after."""

    label: str
    before: float
    after: float
    samples: int
    certain: bool
    """Beyond chance: by McNemar's test, corrected for the number of classes; without predictions, the 95 % intervals do not overlap."""
    flips: tuple[int, int] | None = None
    """Samples lost and won, where predictions tell."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that the page and the card show."""

    input: StageInput
    spec: CompressionJobSpec
    stages: list[StageFigures]
    goals: list[GoalResult]
    baseline: str
    final: str
    """Stage whose figures are the job's: the last one listed."""
    chain: tuple[str, ...]
    """From the baseline to the final stage."""
    comparisons: Mapping[str, Comparison]
    """Stage -> it and the baseline, sample by sample."""
    evidence: list[Evidence]
    """How sure the verdict on each goal is, in the order of `goals`."""
    elsewhere: list[Elsewhere]
    """On `evaluation.datasets`."""

    @property
    def succeeded(self) -> bool:
        """Every stage made something and every goal is met."""
        return not self.input.failure and all(goal.met for goal in self.goals) and all(stage.commit for stage in self.stages)

    @property
    def verdict(self) -> str:
        """One line."""
        if self.input.failure:
            return f"Failed: {self.input.failure}"
        missing = [stage.name for stage in self.stages if stage.commit is None]
        if missing:
            return f"Incomplete: no result of {', '.join(missing)}"
        missed = [goal for goal in self.goals if not goal.met]
        if missed:
            return f"{len(missed)} of {len(self.goals)} goals missed: {', '.join(f'{goal.metric} {goal.bound}' for goal in missed)}"
        return f"All {len(self.goals)} goals met" if self.goals else "All stages done; no goals were set"

    def stage(self, name: str) -> StageFigures | None:
        """A stage by name."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def figure(self, stage: str, metric: str) -> float | None:
        """A stage's figure; `source` has figures too, told by those that start from it."""
        return figure_of_stage(self.figures, stage, metric)

    @property
    def figures(self) -> dict[str, Mapping[str, float]]:
        """Figures of all stages."""
        return {stage.name: stage.metrics for stage in self.stages}

    @property
    def columns(self) -> list[str]:
        """Metrics that any stage has, in the order of SHOWN."""
        return [name for name in SHOWN if any(name in stage.metrics for stage in self.stages)]

    def summary(self) -> dict[str, float]:
        """The job in a few figures, for the parent run: the final stage's plain ones, the baseline's, how much smaller and faster."""
        final = self.stage(self.final)
        own = dict(final.metrics) if final else {}
        found = {name: value for name, value in own.items() if "@" not in name}
        for name in (*QUALITY, "parameters", "macs", "modelSizeBytes"):
            if BASELINE_PREFIX + name not in found and (value := self.figure(self.baseline, name)) is not None:
                found[BASELINE_PREFIX + name] = value
        for name, metric in (("smaller", "modelSizeBytes"), ("faster", "latencyP50Ms")):
            before, after = found.get(BASELINE_PREFIX + metric), found.get(metric)
            if before and after:
                found[name] = before / after
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def compared(self, most: int) -> dict[str, Any]:
        """The comparison for machines: every stage beside the baseline with `most` samples of each kind, and how sure each goal is."""
        goals = [goal.dump() | dataclasses.asdict(found) for goal, found in zip(self.goals, self.evidence, strict=True)]
        stages = {name: comparison.dump(most) for name, comparison in self.comparisons.items()}
        return {
            "baseline": self.baseline,
            "final": self.final,
            "goals": goals,
            "stages": stages,
            "datasets": [found.dump(most) for found in self.elsewhere],
            "seeds": {name: [found.dump() for found in figures] for name, figures in self.spreads.items()},
        }

    @property
    def spreads(self) -> dict[str, list[Spread]]:
        """Stage -> spread over its seeds, of those that were run several times."""
        found = {stage.name: spread.of_stage(stage.details) for stage in self.stages}
        return {name: figures for name, figures in found.items() if figures}

    @property
    def judged_by(self) -> str:
        """The figure that says how good a model of the task is."""
        return judged_by(self.spec.task)

    def accuracy_change(self) -> tuple[float, Interval] | None:
        """Accuracy (or what the task is judged by) of the final stage less the baseline's, with its 95 % interval.

        Of the same samples where it is known what was said of each, else Newcombe's hybrid of two Wilson intervals (1998,
        method 10), which is wider than it need be.
        """
        if self.final in self.comparisons:
            change = self.comparisons[self.final].changes[self.judged_by]
            return change.value, (change.low, change.high)
        first, last = self.stage(self.baseline), self.stage(self.final)
        if first is None or last is None or first.name == last.name:
            return None
        before, after = first.interval(self.judged_by), last.interval(self.judged_by)
        if before is None or after is None:
            return None
        return difference(last.metrics[self.judged_by], after, first.metrics[self.judged_by], before)

    def class_changes(self) -> list[ClassChange]:
        """Recall of every class that has samples, in the baseline and in the final stage, the greatest loss first."""
        if self.final in self.comparisons:
            return [
                ClassChange(entry.label, entry.before, entry.after, entry.samples, entry.certain, (entry.lost, entry.won))
                for entry in self.comparisons[self.final].classes
            ]
        first, last = self.stage(self.baseline), self.stage(self.final)
        if first is None or last is None or first.name == last.name:
            return []
        before, after = first.details.get("perClass", {}), last.details.get("perClass", {})
        changes = [
            ClassChange(
                label=label,
                before=before[label]["recall"],
                after=after[label]["recall"],
                samples=int(after[label]["samples"]),
                certain=after[label]["high"] < before[label]["low"] or after[label]["low"] > before[label]["high"],
            )
            for label in after
            if label in before and after[label]["samples"]
        ]
        return sorted(changes, key=lambda change: (change.after - change.before, change.label))


def difference(after: float, after_interval: Interval, before: float, before_interval: Interval) -> tuple[float, Interval]:
    """`after - before` of two shares and its interval out of theirs (Newcombe, 1998, method 10)."""
    change = after - before
    low = math.hypot(after - after_interval[0], before_interval[1] - before)
    high = math.hypot(after_interval[1] - after, before - before_interval[0])
    return change, (change - low, change + high)


def collect(stage_input: StageInput, store: Store) -> Report:
    """Read every stage's manifest and judge the goals. Raises what the store raises."""
    spec = CompressionJobSpec.model_validate(stage_input.spec)
    kinds = {stage.name: stage.kind for stage in spec.stages}
    stages = [read_stage(outcome, kinds[outcome.name], store) for outcome in stage_input.stages if outcome.name not in RESERVED_STAGES]
    baseline = baseline_of(spec)
    goals = judge(spec, {stage.name: stage.metrics for stage in stages})
    comparisons = evidence.comparisons({stage.name: stage.said for stage in stages}, list(kinds), baseline)
    return Report(
        input=stage_input,
        spec=spec,
        stages=stages,
        goals=goals,
        baseline=baseline,
        final=spec.stages[-1].name,
        chain=chain(spec, spec.stages[-1].name),
        comparisons=comparisons,
        evidence=[evidence_of(goal, result, spec, stages, comparisons, baseline) for goal, result in zip(spec.goals, goals, strict=True)],
        elsewhere=elsewhere.collect(stage_input, store, spec, {stage.name: stage.commit for stage in stages if stage.commit is not None}),
    )


def evidence_of(
    goal: Goal,
    result: GoalResult,
    spec: CompressionJobSpec,
    stages: Sequence[StageFigures],
    comparisons: Mapping[str, Comparison],
    baseline: str,
) -> Evidence:
    """How sure the verdict on a goal is."""
    export = next(stage.export for stage in spec.stages if stage.name == result.stage)
    form = str(goal.format) if export is not None and goal.format not in (None, export.formats[0].type) else ""
    sides = evidence.pair({stage.name: stage.said for stage in stages}, result.stage, baseline, form)
    comparison = evidence.compared(sides) if form else comparisons.get(result.stage)
    details = next((stage.details for stage in stages if stage.name == result.stage), {})
    found = evidence.of_goal(goal, result, export, details, sides, comparison)
    return dataclasses.replace(found, text=found.text + spread.of_goal(goal, result, details))


def read_stage(outcome: StageOutcome, kind: str, store: Store) -> StageFigures:
    """A stage with its manifest, where it made something."""
    if outcome.artifact is None:
        return StageFigures(outcome, kind, None)
    try:
        found = artifacts.find(store, key_of(outcome.artifact, store))
    except ArtifactCorrupt as error:
        return StageFigures(outcome, kind, None, str(error))
    if found is None:
        return StageFigures(outcome, kind, None, "its commit is gone")
    try:
        return StageFigures(outcome, kind, found, said=read_predictions(found))
    except (ArtifactMissing, ValueError) as error:  # ArtifactCorrupt too
        return StageFigures(outcome, kind, found, str(error))


def read_predictions(commit: Commit) -> dict[str, Predictions]:
    """What lies below `measurements/` in the artifact. Raises ArtifactMissing, ArtifactCorrupt, ValueError."""
    paths = {PurePosixPath(file.path): file for file in commit.manifest.files}
    return {
        path.stem: predictions.decode(files.read(commit.store, commit.prefix, file))
        for path, file in paths.items()
        if path.parent.name == artifacts.MEASUREMENTS
    }


def key_of(uri: str, store: Store) -> str:
    """The stage key in an artifact's URI (`<output>/artifacts/<key>/<uid>-<attempt>`)."""
    return uri.removeprefix(f"{store.uri}/").split("/")[-2]


def better(metric: str, change: float) -> bool:
    """Whether a change of a metric is a gain."""
    return change > 0 if metric in HIGHER_IS_BETTER else change < 0


def unit(metric: str, value: float | None) -> str:
    """A figure as a person reads it."""
    if value is None:
        return "-"
    name = metric.rpartition(".")[2].partition("@")[0]
    if name in ("parameters", "macs"):
        return _scaled(value, 1000, ("", " k", " M", " G", " T"))
    if name.endswith("Bytes"):
        return _scaled(value, 1000, (" B", " kB", " MB", " GB", " TB"))
    if name.endswith("Ms"):
        return f"{value:.3g} ms"
    if name == "throughputPerSecond":
        return f"{value:.4g} /s"
    return f"{value:.4f}"


def _scaled(value: float, base: int, units: Sequence[str]) -> str:
    index = 0
    while abs(value) >= base and index < len(units) - 1:
        value /= base
        index += 1
    return f"{value:.3g}{units[index]}" if index else f"{value:.0f}{units[0]}"
