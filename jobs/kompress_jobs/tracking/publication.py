"""The report's tracking: what the report found goes onto the job's run, dangling runs are ended, the model is registered.

The report's own process writes files and a `Publish` beside them; it never speaks to MLflow. All of this can be done twice.
"""

import logging
import threading
import time
from pathlib import Path

from kompress_api.contract import StageInput, StageSuccess
from kompress_jobs.report.publish import FILE, FOLDER, Publish
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.store import Store, open_store
from kompress_jobs.tracking import model_registry, spool
from kompress_jobs.tracking.job_run import JobRun
from kompress_jobs.tracking.mlflow import TAG_ATTEMPT, TAG_NOTE, TAG_STAGE, Metric, Mlflow
from kompress_jobs.tracking.tracker import send

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 300.0
"""How long MLflow may be out of reach; a report has 15 minutes, and can be started again."""


class Publication(JobRun):
    """Publishes what the report left."""

    patience = PATIENCE_SECONDS

    def __init__(self, stage: StageInput, scratch: Path, stopping: threading.Event) -> None:
        super().__init__(stage, stopping)
        self._scratch = scratch

    def tell(self, server: Mlflow, message: StageSuccess) -> str:
        wanted = Publish.model_validate_json((self._scratch / FILE).read_bytes())
        return publish(server, self._stage, wanted, self._scratch)


def publish(server: Mlflow, stage: StageInput, wanted: Publish, scratch: Path) -> str:
    """Bring the job's run to its end; returns its id."""
    store = open_store(stage.output, "output")
    run = stage.parent_run_id or server.open_parent()
    send_what_was_left(server, store, run)
    server.end_dangling()
    now = int(time.time() * 1000)
    server.log(run, [Metric(name, value, now, 0) for name, value in wanted.summary.items()])
    server.log(run, tags={TAG_NOTE: note(server, wanted), "kompress.outcome": "FINISHED" if wanted.succeeded else "FAILED"})
    server.artifact(run, scratch / FOLDER)
    name = stage.tracking.registered_model
    if wanted.succeeded and name and wanted.artifact:
        version = register(server, store, stage, wanted, run, name, scratch)
        server.log(run, tags={"kompress.registeredModel": f"{name}/{version}"})
    server.end(run, "FINISHED" if wanted.succeeded else "FAILED")
    return run


def register(server: Mlflow, store: Store, stage: StageInput, wanted: Publish, run: str, name: str, scratch: Path) -> str:
    """The version of the registered model that is this job's."""
    folder = scratch / "model"
    artifacts.fetch(store, wanted.artifact, wanted.digest, folder)
    tags = {"kompress.artifact": wanted.artifact, "kompress.digest": wanted.digest, "kompress.task": stage.task}
    tags |= {"kompress.source": stage.model.source, "kompress.dataset": stage.dataset.source}
    model = model_registry.log_model(server, run, stage.job.name, folder, wanted.metrics, tags, scratch)
    return model_registry.register(server, run, name, model, tags)


def send_what_was_left(server: Mlflow, store: Store, parent: str) -> None:
    """Send what pods could not get rid of in their time, end those runs as they should have ended, and remove it."""
    for key, stage, attempt, events in spool.left(store, server.job.uid):
        run = server.open_nested(parent, stage, attempt)
        send(server, store, run, events)
        outcomes = [event["values"]["kompress.outcome"] for event in events if "kompress.outcome" in event.get("values", {})]
        server.end(run, outcomes[-1] if outcomes else "KILLED")
        store.delete([key])


def note(server: Mlflow, wanted: Publish) -> str:
    """The note, with a link that lays the last attempts of all stages side by side."""
    last: dict[str, str] = {}
    for run in sorted(server.runs(), key=lambda run: int(run.data.tags.get(TAG_ATTEMPT, "0"))):
        last[run.data.tags.get(TAG_STAGE, "")] = run.info.run_id
    link = server.compare_url(last.values())
    return f"{wanted.note}\n\n[Compare the stages]({link})" if link and last else wanted.note
