"""The job's model in MLflow: a LoggedModel with its signature, figures and files, and a registered version with aliases and lineage.

Everything is looked up by `kompress.uid` first, so that a report that runs twice registers once.
"""

import logging
import re
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from kompress_api.errors import InvalidManifest
from kompress_jobs.tracking.mlflow import JOB, TAG_JOB, TAG_ROLE, TAG_UID, Metric, Mlflow
from kompress_jobs.tracking.model_files import pack

log = logging.getLogger(__name__)

LATEST = "kompress"
"""Alias of the newest version that any job has registered under a name."""


def log_model(
    server: Mlflow, run: str, name: str, folder: Path, metrics: Mapping[str, float], tags: Mapping[str, str], scratch: Path
) -> str:
    """Id of the job's LoggedModel: the one that is there, or a new one with the folder's files."""
    own = {TAG_UID: server.job.uid, TAG_JOB: server.job.name, TAG_ROLE: JOB, **tags}
    for found in server.models({TAG_UID: server.job.uid, TAG_ROLE: JOB}):
        if found.status == "READY":
            return str(found.model_id)
    packed = pack(folder, scratch / "mlflow-model")
    model = server.call(lambda: server.client.create_logged_model(server.experiment, name=name, source_run_id=run, tags=own))
    now = int(time.time() * 1000)
    server.fill_model(run, model.model_id, packed, [Metric(name, value, now, 0) for name, value in metrics.items()])
    return str(model.model_id)


def register(server: Mlflow, run: str, name: str, model_id: str, tags: Mapping[str, str]) -> str:
    """Number of the job's version of the registered model `name`: the one that is there, or a new one; aliases point to it."""
    own = {TAG_UID: server.job.uid, TAG_JOB: server.job.name, **tags}
    quoted = name.replace("'", "''")
    found = server.call(lambda: server.client.search_model_versions(f"name = '{quoted}' and tag.`{TAG_UID}` = '{server.job.uid}'"))
    if found:
        version = str(found[0].version)
    else:
        try:
            server.call(lambda: server.client.create_registered_model(name, tags={"kompress.task": tags.get("kompress.task", "")}))
        except InvalidManifest:
            log.info("the registered model %s is there already", name)
        source = f"models:/{model_id}"
        made = server.call(lambda: server.client.create_model_version(name, source, run_id=run, tags=own, model_id=model_id))
        version = str(made.version)
    for alias in aliases(server.job.name):
        server.call(partial(server.client.set_registered_model_alias, name, alias, version))
    return version


def aliases(job: str) -> list[str]:
    """`kompress`, and the job's name; MLflow keeps `latest` and `v1`, `v2`, ... for itself."""
    return [LATEST, *([] if job in ("latest", LATEST) or re.fullmatch(r"v\d+", job) else [job])]
