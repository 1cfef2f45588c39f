"""The HTML report: one file, no script, nothing fetched; MLflow shows it inline and a browser opens it from disk."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kompress_api.goals import BASELINE_PREFIX
from kompress_jobs.measure.paired import Change, Flipped
from kompress_jobs.report.charts import Bar, Pair, bars, pairs
from kompress_jobs.report.figures import Report, better, unit

MAX_CLASSES = 30
"""Classes that are drawn: those that lost most."""
MAX_FLIPPED = 25
"""Samples that are shown of those that changed sides, of each kind."""
COMPARED = ("accuracy", "wer", "cer", "recall", "f1", "f1Micro", "top5", "loss")
TITLES = {"accuracy": "Accuracy", "wer": "Word error rate"}
"""Of what a task is judged by, in a sentence."""
SOUGHT = {"accuracy": "accuracy", "wer": "accuracy of words (1 - word error rate)"}
"""What a search looked at."""


@cache
def templates() -> Environment:
    """Templates of this folder; HTML is escaped, an unknown name is an error."""
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(
        loader=loader, autoescape=lambda name: bool(name and ".html" in name), undefined=StrictUndefined, keep_trailing_newline=True
    )


def render(report: Report, run_url: str = "") -> str:
    """The page."""
    changes = report.class_changes()
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            report=report,
            cards=cards(report),
            verdicts=list(zip(report.goals, report.evidence, strict=True)),
            change=report.accuracy_change(),
            title=TITLES[report.judged_by],
            sought=SOUGHT[report.judged_by],
            charts=charts(report),
            classes=pairs(
                [
                    Pair(c.label, c.before, c.after, f"{c.before:.3f} → {c.after:.3f}", _kind(c.after - c.before))
                    for c in changes[:MAX_CLASSES]
                ]
            ),
            unshown=max(0, len(changes) - MAX_CLASSES),
            compared=[name for name in COMPARED if any(name in entry.changes for entry in report.comparisons.values())],
            flipped=flipped(report),
            certain=[change.label for change in changes if change.certain and change.after < change.before],
            measured=measured(report),
            cuts=[(stage.name, cuts(stage.details), stage.details.get("search")) for stage in report.stages if "layers" in stage.details],
            run_url=run_url,
            spec=pretty(report.spec.dump()),
            unit=unit,
            better=better,
            pretty=pretty,
            chance=chance,
            mark=mark,
        )
    )


def flipped(report: Report) -> list[tuple[str, int, list[Flipped]]]:
    """Of the final stage: (title, how many, the first ones), the losses first."""
    found = report.comparisons.get(report.final)
    if found is None:
        return []
    kinds = (("Right before, wrong now", found.lost), ("Wrong before, right now", found.won))
    return [(title, len(samples), samples[:MAX_FLIPPED]) for title, samples in kinds if samples]


def chance(p: float) -> str:
    """A probability of McNemar's test."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def mark(metric: str, change: Change) -> str:
    """Class of the style sheet: a change whose interval holds zero is none."""
    return "soft" if change.low <= 0 <= change.high else "good" if better(metric, change.value) else "bad"


def cards(report: Report) -> list[tuple[str, str]]:
    """The job in at most four figures."""
    summary = report.summary()
    name = report.judged_by
    found = [(name, unit(name, summary[name]))] if name in summary else []
    found += [(f"{name} than {report.baseline}", f"{summary[name]:.2f} x") for name in ("smaller", "faster") if name in summary]
    return [*found, *((name, unit(name, summary[name])) for name in ("parameters",) if name in summary)]


def charts(report: Report) -> list[tuple[str, Markup]]:
    """Accuracy (or what the task is judged by) with its interval, and size, from stage to stage."""
    name = report.judged_by
    quality = [
        Bar(stage.name, stage.metrics[name], f"{stage.metrics[name]:.4f}", *(stage.interval(name) or (None, None)))
        for stage in report.stages
        if name in stage.metrics
    ]
    lowest = min((bar.low if bar.low is not None else bar.value for bar in quality), default=0.0)
    start = max(0.0, lowest - 0.05) if lowest > 0.5 else 0.0
    found = [(f"{TITLES[name]} on the test split, 95 % interval{f' (axis from {start:.2f})' if start else ''}", bars(quality, start=start))]
    for title, metric in (("Bytes of the model", "modelSizeBytes"), ("Multiply-accumulates of one sample", "macs")):
        rows = [
            Bar(stage.name, stage.metrics[metric], unit(metric, stage.metrics[metric]))
            for stage in report.stages
            if metric in stage.metrics
        ]
        found.append((title, bars(rows)))
    return found


def measured(report: Report) -> list[tuple[str, list[tuple[str, float, float | None]]]]:
    """What the final stage measured on its targets, each format, target and batch size beside the baseline lowered alike."""
    final = report.stage(report.final)
    figures: Mapping[str, float] = final.metrics if final else {}
    rows = [
        (name, value, figures.get(BASELINE_PREFIX + name))
        for name, value in sorted(figures.items())
        if not name.startswith(BASELINE_PREFIX) and BASELINE_PREFIX + name in figures
    ]
    return [("On the target", rows)]


def cuts(details: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """What pruning took of each layer, why, and what a cut of it alone would have cost: (layer, units, why, cost)."""
    costs = details.get("sensitivity", {}).get("layers", {})
    return [
        (
            entry["layer"],
            f"{entry['before']} → {entry['now']}" if "now" in entry else "",
            entry["why"],
            ", ".join(f"{row['ratio']:.0%}: {row.get('accuracy', row['loss']):.3f}" for row in costs.get(entry["layer"], [])),
        )
        for entry in details["layers"]
    ]


def pretty(value: object) -> str:
    """JSON for people."""
    return json.dumps(value, indent=1, sort_keys=True, default=str)


def _kind(change: float) -> str:
    return "better" if change > 0 else "worse" if change < 0 else "same"
