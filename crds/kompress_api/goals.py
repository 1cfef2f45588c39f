"""Goals: what they may say, and when a bound holds; `judge.py` applies them to a job.

Figures come as flat maps from metric name to a finite number, one map a stage. Figures of the exported model carry the
plain name for the first format, target and batch size, and `figure_name(...)` for the others; an export also gives those
of the baseline lowered by the same exporter, prefixed `baseline.`; a stage that starts from `source` gives the source's
own, prefixed `source.`.
"""

from typing import Annotated, Literal

from pydantic import Field

from kompress_api.base import Model, Rule
from kompress_api.names import StageName
from kompress_api.stages.export import BatchSize, Export, FormatType
from kompress_api.training import Metric

HIGHER_IS_BETTER = frozenset({"accuracy", "recall", "f1", "f1Micro", "meanAveragePrecision", "top5", "throughputPerSecond"})
RATES_OF_ERRORS = frozenset({"wer", "cer"})
"""Wrong words, wrong characters, as shares of what was said; of speech-recognition."""
QUALITY = RATES_OF_ERRORS | {"accuracy", "recall", "f1", "f1Micro", "meanAveragePrecision", "top5", "loss"}
"""Figures of what a model answers."""
LOWER_IS_BETTER = RATES_OF_ERRORS | {
    *("loss", "parameters", "macs", "modelSizeBytes"),
    *("latencyP50Ms", "latencyP99Ms", "peakMemoryBytes"),
}
METRICS = HIGHER_IS_BETTER | LOWER_IS_BETTER
TARGET_METRICS = frozenset({"latencyP50Ms", "latencyP99Ms", "throughputPerSecond", "peakMemoryBytes"})
BASELINE_PREFIX = "baseline."
SOURCE_PREFIX = "source."

GoalMetric = Literal[
    "accuracy",
    "recall",
    "f1",
    "f1Micro",
    "meanAveragePrecision",
    "top5",
    "wer",
    "cer",
    "loss",
    "parameters",
    "macs",
    "modelSizeBytes",
    "latencyP50Ms",
    "latencyP99Ms",
    "throughputPerSecond",
    "peakMemoryBytes",
]


def judged_by(task: str) -> str:
    """The figure that says how good a model of a task is: what tables, searches and soups look at."""
    return "wer" if task == "speech-recognition" else "accuracy"


def measured_by(task: str) -> frozenset[str]:
    """Figures of a task's models, beside those of their size and speed."""
    return RATES_OF_ERRORS | {"loss"} if task == "speech-recognition" else QUALITY - RATES_OF_ERRORS


def figure_name(metric: str, format_type: str, target: str, batch_size: int) -> str:
    """How a figure of an exported model is called where it is not of the first format, target and batch size."""
    return f"{metric}@{format_type}/{target}/{batch_size}"


class Goal(Model):
    """One thing that the model must reach: a metric and exactly one bound."""

    metric: GoalMetric
    """Figure that is judged, on the test split."""
    at_most: float | None = None
    """Largest value."""
    at_least: float | None = None
    """Smallest value."""
    max_degradation: Annotated[float, Field(ge=0)] | None = None
    """Most that may be lost against the baseline, in the metric's own unit (0.01 of accuracy is one point)."""
    min_improvement: Annotated[float, Field(gt=0)] | None = None
    """Smallest factor in the better direction against the baseline (2.0: twice as fast, half as large)."""
    stage: StageName | None = None
    """Stage whose figures are judged; absent: the last one listed."""
    format: FormatType | None = None
    """Absent: the export's first format."""
    target: StageName | None = None
    """Name of a target (such as cpu1); absent: the export's first."""
    batch_size: BatchSize | None = None
    """Absent: the target's first."""

    rules = (
        Rule(
            cel="[has(self.atMost), has(self.atLeast), has(self.maxDegradation), has(self.minImprovement)].filter(x, x).size() == 1",
            holds=lambda g: sum(v is not None for v in (g.at_most, g.at_least, g.max_degradation, g.min_improvement)) == 1,
            message="give exactly one of atMost, atLeast, maxDegradation, minImprovement",
        ),
    )

    @property
    def measured_on_target(self) -> bool:
        """Whether only an export can give the figure."""
        return self.metric in TARGET_METRICS

    @property
    def relative(self) -> bool:
        """Whether the baseline's figure is needed."""
        return self.max_degradation is not None or self.min_improvement is not None

    def figure(self, export: Export | None) -> str:
        """The name of the figure that is judged, in a stage that is (or is not) an export."""
        if export is None:
            return self.metric
        form = self.format or export.formats[0].type
        target = next((t for t in export.targets if t.key == self.target), export.targets[0])
        name = self.target or target.key
        batch_size = self.batch_size or target.batch_sizes[0]
        if self.metric not in TARGET_METRICS and name == target.key:  # it depends on the kind of processor at most
            alike = next(t for t in export.targets if self.metric not in QUALITY or t.device is target.device)
            name, batch_size = alike.key, alike.batch_sizes[0]
        first = (export.formats[0].type, export.targets[0].key, export.targets[0].batch_sizes[0])
        return self.metric if (form, name, batch_size) == first else figure_name(self.metric, form, name, batch_size)

    def bound(self) -> str:
        """The bound, as a person reads it."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        if self.max_degradation is not None:
            return f"loses <= {self.max_degradation:g}"
        return f">= {self.min_improvement:g} x better"


class GoalResult(Model):
    """What became of a goal."""

    metric: Metric
    """Figure that was judged."""
    bound: str = ""
    """The bound, as a person reads it."""
    stage: str = ""
    """Stage whose figure it is."""
    value: float | None = None
    """The figure; absent when it was not measured."""
    baseline: float | None = None
    """The baseline's figure; absent for absolute bounds."""
    met: bool
    """Whether the bound holds; false when a figure is missing."""
    loss: dict[str, float] = {}
    """Change of the metric at each stage from the baseline to the goal's stage, in the metric's own unit."""


def holds(goal: Goal, value: float, baseline: float | None) -> bool:
    """Whether `value` keeps the goal's bound; `baseline` is needed by relative bounds only."""
    if goal.at_most is not None:
        return value <= goal.at_most
    if goal.at_least is not None:
        return value >= goal.at_least
    if baseline is None:
        return False
    better = goal.metric in HIGHER_IS_BETTER
    if goal.max_degradation is not None:
        lost = baseline - value if better else value - baseline
        return lost <= goal.max_degradation + 1e-12
    assert goal.min_improvement is not None
    gained, given = (value, baseline) if better else (baseline, value)
    return gained >= goal.min_improvement * given
