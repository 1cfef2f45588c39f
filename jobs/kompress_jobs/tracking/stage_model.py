"""A stage's model in MLflow: one LoggedModel an artifact, so that the Models tab of the experiment lays all stages side by side.

It is light: MLmodel (signature, labels, lineage) and the stage's own description. The weights stay in the output, under the
artifact that its tags name with digest and key. There they are checked, shared by key and already paid for; a second copy of
every stage would double the store, hold the end of every stage up by its upload, and could be loaded past the digest. Only
the version that the report registers has its files in MLflow, since people serve that one from there.

It is looked up by the artifact's digest before it is made. So what is sent twice makes one, an attempt that loses the commit
to another shares the winner's, and a reused stage gets the one that is there: its figures are the same, and a second row
would only look like a second model. An experiment that has none yet (a job of another experiment made it) gets it then.
"""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kompress_api.errors import ArtifactMissing
from kompress_jobs.storage.store import Store
from kompress_jobs.tracking.mlflow import ATTEMPT, TAG_JOB, TAG_ROLE, TAG_STAGE, TAG_UID, Metric, Mlflow
from kompress_jobs.tracking.model_files import DESCRIPTIONS, parse, write_mlmodel

log = logging.getLogger(__name__)


def log_model(server: Mlflow, store: Store, run: str, event: Mapping[str, Any]) -> None:
    """Make the artifact's LoggedModel, or end what an earlier try began, and show it as what the run gave."""
    tags = {"kompress.digest": event["digest"], TAG_ROLE: ATTEMPT}
    found = server.models(tags)
    ready = [model for model in found if model.status == "READY"]
    model_id = (ready or found)[0].model_id if found else ""
    if not ready:
        with tempfile.TemporaryDirectory() as folder:
            if not fill(Path(folder), store, event["artifact"]):
                return
            if not model_id:
                tags |= {"kompress.artifact": event["artifact"], "kompress.key": event["key"]}
                tags |= {TAG_UID: server.job.uid, TAG_JOB: server.job.name, TAG_STAGE: event["stage"]}
                about = {"name": f"{server.job.name}-{event['stage']}", "source_run_id": run, "tags": tags, "model_type": event["kind"]}
                model_id = server.call(lambda: server.client.create_logged_model(server.experiment, **about)).model_id
            server.fill_model(run, model_id, Path(folder), figures(event))
    server.show_output(run, model_id, event["step"])


def fill(folder: Path, store: Store, artifact: str) -> bool:
    """Write the light files of the artifact's model; False, with a warning, when there is none to be described."""
    for name in DESCRIPTIONS:
        try:
            description = store.read(f"{artifact.removeprefix(f'{store.uri}/')}/{name}")
        except ArtifactMissing:
            continue
        (folder / name).write_bytes(description)
        try:
            write_mlmodel(folder, name, parse(description))
        except (ValueError, LookupError, TypeError) as error:
            log.warning("MLflow gets no model of %s: its %s can't be read: %r", artifact, name, error)
            return False
        return True
    log.warning("MLflow gets no model of %s: nothing there describes one", artifact)
    return False


def figures(event: Mapping[str, Any]) -> list[Metric]:
    """What every stage's model has under the same name: no figure of another model (`baseline.`) or of another target (`@`)."""
    return [Metric(name, value, event["time"], event["step"]) for name, value in event["values"].items() if name.isidentifier()]
