"""report: judge the goals, write the HTML report, the model card and the comparison for machines, and leave for the launcher what
MLflow is to be told.

It trains and measures nothing, runs after a failure too, and can run twice: every time it writes the same.
"""

from pathlib import Path

from kompress_api.contract import StageInput, StageSuccess
from kompress_jobs.events import Events
from kompress_jobs.report import figures, model_card, page
from kompress_jobs.report.publish import FILE, FOLDER, Publish
from kompress_jobs.storage.local import write_atomically
from kompress_jobs.storage.store import open_store

REPORT = "report.html"
CARD = "model-card.md"
COMPARISON = "comparison.json"
MAX_FLIPPED = 1000
"""Samples that changed sides, of each kind and stage, in COMPARISON."""


def run(stage: StageInput, scratch: Path, events: Events) -> StageSuccess:
    """The report of the job. Raises what the store raises."""
    store = open_store(stage.output, "output")
    events.progress(0, 2, "reading the figures of all stages")
    report = figures.collect(stage, store)
    card = model_card.render(report)
    folder = scratch / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_text(page.render(report), encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / COMPARISON).write_text(page.pretty(report.compared(MAX_FLIPPED)) + "\n", encoding="utf-8")
    prefix = f"jobs/{stage.job.uid}"
    events.progress(1, 2, "writing the report")
    store.upload(folder, prefix, [REPORT, CARD, COMPARISON])
    final = report.stage(report.final)
    commit = final.commit if final else None
    wanted = Publish(
        summary=report.summary(),
        note=card.partition("---\n")[2].partition("---\n")[2],
        succeeded=report.succeeded,
        artifact=commit.uri if commit else "",
        digest=commit.digest if commit else "",
        metrics=dict(commit.metrics) if commit else {},
    )
    write_atomically(scratch / FILE, wanted.model_dump_json().encode())
    return StageSuccess(report=f"{store.uri}/{prefix}/{REPORT}", goals=report.goals, metrics=report.summary())
