"""What a preflight found, for people: what will run, what is there already, and how large the model is expected to become."""

import json
import pathlib
import urllib.parse
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from kompress_api.job import CompressionJobSpec
from kompress_api.names import SOURCE
from kompress_api.status import PlanStatus
from kompress_operator.cli.tables import FIGURES, number

PREDICTED = {name: FIGURES[name] for name in ("parameters", "macs", "modelSizeBytes")} | {
    "artifactBytes": "artifact MiB",
    "workerMemoryBytes": "worker MiB",
}
MIB = 2**20
IN_MIB = ("artifactBytes", "workerMemoryBytes")


def read_plan(plan: PlanStatus) -> dict[str, Any] | None:
    """plan.json where it lies on this machine; None elsewhere: its URI is shown instead."""
    parts = urllib.parse.urlsplit(plan.uri)
    if parts.scheme != "file":
        return None
    path = pathlib.Path(urllib.parse.unquote(parts.path))
    return dict(json.loads(path.read_bytes())) if path.is_file() else None


def plan_table(spec: CompressionJobSpec, plan: PlanStatus, document: dict[str, Any] | None) -> Table:
    """One row a stage; figures are those that can be told before it runs, with their range where they are not exact
    (`kompress_jobs/planning/plan.py`)."""
    table = Table("stage", "kind", "does", "key", box=SIMPLE_HEAD)
    for title in PREDICTED.values():
        table.add_column(title, justify="right")
    planned = {entry["name"]: entry for entry in (document or {}).get("stages", [])}
    if document is not None:
        table.add_row(SOURCE, "", "", str(document.get("sourceKey", ""))[:16], *_cells(document.get("source", {})))
    for stage in spec.stages:
        does = "reuse" if plan.hits.get(stage.name, False) else "run"
        table.add_row(stage.name, stage.kind, does, plan.keys.get(stage.name, ""), *_predicted(planned.get(stage.name, {})))
    return table


def _cells(figures: dict[str, float]) -> list[str]:
    return [_text(name, figures.get(name)) for name in PREDICTED]


def _text(name: str, value: float | None) -> str:
    if value is None or name not in IN_MIB:
        return number(name, value)
    return f"{value / MIB:,.0f}" if value >= MIB else f"{value / MIB:.2g}"


def _predicted(entry: dict[str, Any]) -> list[str]:
    """`5,000 (1,000 - 9,000)`: what is likely, and what it can't fall below or exceed."""
    figures, low, high = (entry.get(name, {}) for name in ("figures", "low", "high"))
    return [
        f"{text} ({_text(name, low[name])} - {_text(name, high[name])})" if name in low else text
        for name, text in zip(PREDICTED, _cells(figures), strict=True)
    ]
