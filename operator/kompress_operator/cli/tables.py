"""A job's status as tables for people: what every stage made, and which goals were met."""

from collections.abc import Iterator, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from kompress_api.goals import SOURCE_PREFIX, GoalResult
from kompress_api.names import PREFLIGHT, REPORT, SOURCE
from kompress_api.status import CompressionJobStatus, StageStatus

FIGURES = {
    "accuracy": "accuracy",
    "recall": "recall",
    "parameters": "parameters",
    "macs": "MACs",
    "modelSizeBytes": "bytes",
    "latencyP50Ms": "p50 ms",
    "latencyP99Ms": "p99 ms",
}
SPOKEN = {"wer": "WER", "cer": "CER"}
"""What stands in place of accuracy and recall for a model that hears speech."""
WHOLE = frozenset({"parameters", "macs", "modelSizeBytes"})


def console(*, stderr: bool = False) -> Console:
    """A console that cuts nothing where nobody looks: outside of a terminal a line is as long as it must be."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=200)


def stages_table(status: CompressionJobStatus) -> Table:
    """One row a stage, in the order of the manifest; the model that it all began with first."""
    table = Table("stage", "state", box=SIMPLE_HEAD)
    columns = columns_of(status)
    for title in columns.values():
        table.add_column(title, justify="right")
    source = _source_figures(status, columns)
    if source:
        table.add_row(SOURCE, "", *_cells(source, columns))
    for entry in user_stages(status):
        table.add_row(entry.name, state_of(entry), *_cells(entry.result.metrics if entry.result else {}, columns))
    return table


def columns_of(status: CompressionJobStatus) -> Mapping[str, str]:
    """Figures that the table shows, and what they are called there."""
    spoken = any(entry.result is not None and SPOKEN.keys() & entry.result.metrics.keys() for entry in status.stages)
    return SPOKEN | {name: title for name, title in FIGURES.items() if name not in ("accuracy", "recall")} if spoken else FIGURES


def goals_table(goals: list[GoalResult]) -> Table:
    """One row a goal."""
    table = Table("goal", "stage", "asked", box=SIMPLE_HEAD)
    for title in ("value", "baseline"):
        table.add_column(title, justify="right")
    table.add_column("")
    for goal in goals:
        value, baseline = (number(goal.metric, figure) for figure in (goal.value, goal.baseline))
        table.add_row(goal.metric, goal.stage, goal.bound, value, baseline, "met" if goal.met else "missed")
    return table


def user_stages(status: CompressionJobStatus) -> Iterator[StageStatus]:
    """Without preflight and report."""
    return (entry for entry in status.stages if entry.name not in (PREFLIGHT, REPORT))


def state_of(entry: StageStatus) -> str:
    """A stage's state in a word, and whether anything was done for it."""
    return "Reused" if entry.result is not None and entry.result.reused else str(entry.state)


def report_of(status: CompressionJobStatus) -> str:
    """URI of the report; empty where there is none."""
    entry = status.stage(REPORT)
    return entry.result.artifact if entry is not None and entry.result is not None else ""


def model_of(status: CompressionJobStatus) -> str:
    """URI of the last stage's artifact; empty where there is none."""
    *_, last = user_stages(status)
    return last.result.artifact if last.result is not None else ""


def _source_figures(status: CompressionJobStatus, columns: Mapping[str, str]) -> dict[str, float]:
    """Told by whichever stage started from the source."""
    told = [entry.result.metrics for entry in status.stages if entry.result is not None]
    return {name: own[SOURCE_PREFIX + name] for own in told for name in columns if SOURCE_PREFIX + name in own}


def _cells(metrics: Mapping[str, float], columns: Mapping[str, str]) -> Iterator[str]:
    return (number(name, metrics.get(name)) for name in columns)


def number(metric: str, value: float | None) -> str:
    """A figure as a person reads it; empty where there is none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if metric in WHOLE else f"{value:.4g}"
