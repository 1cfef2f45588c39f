"""The job's model in MLflow: a LoggedModel with its signature, figures and files, and a registered version with aliases and lineage.

Everything is looked up by `kompress.uid` first, so that a report that runs twice registers once. An ONNX model gets MLflow's
own flavor (`mlflow.pyfunc.load_model` runs it); a bundle is kept as it is, with its description as the flavor `kompress`.
"""

import json
import logging
import re
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kompress_api.errors import InvalidManifest
from kompress_jobs.tracking.mlflow import TAG_JOB, TAG_UID, Mlflow, metric_key

log = logging.getLogger(__name__)

LATEST = "kompress"
"""Alias of the newest version that any job has registered under a name."""
EXPORT, BUNDLE = "export.json", "bundle.json"
"""Descriptions that stages leave in their folder (`bundle.py`, `stages/export.py`)."""


def log_model(
    server: Mlflow, run: str, name: str, folder: Path, metrics: Mapping[str, float], tags: Mapping[str, str], scratch: Path
) -> str:
    """Id of the job's LoggedModel: the one that is there, or a new one with the folder's files."""
    own = {TAG_UID: server.job.uid, TAG_JOB: server.job.name, **tags}
    text = f"tags.`{TAG_UID}` = '{server.job.uid}'"
    for found in server.call(lambda: server.client.search_logged_models([server.experiment], text)):
        if str(found.status) in ("READY", "LoggedModelStatus.READY"):
            return str(found.model_id)
    packed = pack(folder, scratch / "mlflow-model")
    model = server.call(lambda: server.client.create_logged_model(server.experiment, name=name, source_run_id=run, tags=own))
    server.call(lambda: server.client.log_model_artifacts(model.model_id, str(packed)))
    _log_figures(server, run, model.model_id, metrics)
    server.call(lambda: server.client.finalize_logged_model(model.model_id, "READY"))
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


def pack(folder: Path, target: Path) -> Path:
    """A stage's folder as an MLflow model: its files beside an MLmodel with signature."""
    import mlflow.models
    import numpy
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    described = read_description(folder)
    files = [str(path) for path in sorted(folder.iterdir())]
    first = next(iter(described.get("files", [])), None)
    batch = (first or {}).get("batch") or -1
    inputs = [TensorSpec(numpy.dtype(entry["dtype"]), (batch, *entry["shape"][1:]), entry["name"]) for entry in described["inputs"]]
    signature = ModelSignature(
        inputs=Schema(inputs),
        outputs=Schema([TensorSpec(numpy.dtype("float32"), (batch, len(described["labels"])), "scores")]),
    )
    metadata = {"labels": described["labels"], "preprocessing": described["preprocessing"], "lineage": described.get("lineage", [])}
    if first is not None and first["type"] == "ONNX":
        import mlflow.onnx
        import onnx

        graph = onnx.load(str(folder / first["file"]))
        rest = [path for path in files if Path(path).name != first["file"]]
        mlflow.onnx.save_model(
            graph, str(target), signature=signature, pip_requirements=["onnxruntime"], metadata=metadata, extra_files=rest
        )
        return target
    target.mkdir(parents=True)
    for path in files:
        (target / Path(path).name).write_bytes(Path(path).read_bytes())
    model = mlflow.models.Model(signature=signature, metadata=metadata)
    model.add_flavor("kompress", version=1, description=BUNDLE if (folder / BUNDLE).exists() else EXPORT)
    model.save(str(target / "MLmodel"))
    return target


def read_description(folder: Path) -> dict[str, Any]:
    """What a stage says of its files."""
    path = next((folder / name for name in (EXPORT, BUNDLE) if (folder / name).exists()), None)
    if path is None:
        raise InvalidManifest(f"{folder} holds neither {EXPORT} nor {BUNDLE}", hint="register the artifact of a stage that makes a model")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _log_figures(server: Mlflow, run: str, model_id: str, metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    points = [Metric(metric_key(name), value, now, 0, model_id=model_id, run_id=run) for name, value in metrics.items()]
    server.call(lambda: server.client.log_batch(run, metrics=points))
