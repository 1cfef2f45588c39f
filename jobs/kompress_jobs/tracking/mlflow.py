"""The one door to MLflow: its errors become ours, a call is tried again while the server is out of reach, runs are found by tag.

A job is one parent run, a stage's attempt one nested run. Both are looked up by their `kompress.*` tags before they are made,
so whoever tries again finds what an earlier try left behind. Importing MLflow takes seconds and 170 MiB: only the launcher's
tracking thread, `preflight` and `report` do it, never a process that trains.
"""

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kompress_api.contract import CREDENTIALS_FOLDER, ENV_CREDENTIALS, JobIdentity
from kompress_api.errors import CredentialsRefused, InvalidManifest, KompressError, StorageUnavailable
from kompress_api.places import Tracking

log = logging.getLogger(__name__)
T = TypeVar("T")

TAG_UID = "kompress.uid"
TAG_ROLE = "kompress.role"
TAG_JOB = "kompress.job"
TAG_NAMESPACE = "kompress.namespace"
TAG_STAGE = "kompress.stage"
TAG_ATTEMPT = "kompress.attempt"
TAG_PARENT = "mlflow.parentRunId"
TAG_NAME = "mlflow.runName"
TAG_NOTE = "mlflow.note.content"
JOB, ATTEMPT = "job", "attempt"

REFUSED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
WRONG = frozenset(
    {"BAD_REQUEST", "INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST", "ENDPOINT_NOT_FOUND", "FEATURE_DISABLED", "NOT_IMPLEMENTED"}
    | {"ALREADY_EXISTS", "RESOURCE_ALREADY_EXISTS", "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE_TRANSITION"}
    | {"QUOTA_EXCEEDED", "RESOURCE_LIMIT_EXCEEDED", "MAX_BLOCK_SIZE_EXCEEDED"}
)
"""Error codes after which the same call would be refused again; all others may pass."""
MAX_METRICS, MAX_PARAMS, MAX_TAGS = 1000, 100, 100
"""Of one log_batch."""
MAX_VALUE = 6000
"""Characters of a param's value."""


class Metric(NamedTuple):
    """One point of a curve."""

    key: str
    value: float
    timestamp: int
    """Milliseconds since the epoch."""
    step: int


def metric_key(name: str) -> str:
    """A figure's name as MLflow takes it: `@` becomes `/`, which also makes a chart group."""
    return re.sub(r"[^\w\-. /:]", "_", name.replace("@", "/"))


def translate(error: Exception, uri: str) -> KompressError:
    """An exception of MLflow, or of what it is built on, as ours."""
    code = getattr(error, "error_code", "")
    text = str(getattr(error, "message", "") or error)[:400]
    if code in REFUSED or ("403" in text.partition("failed")[0] and "Host" in text):
        return CredentialsRefused(
            f"MLflow at {uri} refuses: {text}",
            field="spec.tracking",
            hint="give spec.tracking.credentialsSecret, or list this host name in the server's --allowed-hosts",
        )
    if type(error).__name__ == "InvalidUrlException" or code in WRONG:
        return InvalidManifest(f"MLflow at {uri} can't do that: {text}", field="spec.tracking", hint="see the server's answer")
    return StorageUnavailable(
        f"MLflow at {uri} is out of reach: {text}", field="spec.tracking", hint="is the server up, and the address right?"
    )


def load_credentials(environment: Mapping[str, str] | None = None) -> None:
    """Give MLflow the user name, password or token of the mounted Secret."""
    base = (os.environ if environment is None else environment).get(ENV_CREDENTIALS, CREDENTIALS_FOLDER)
    if base and (folder := Path(base) / "tracking").is_dir():
        for path in folder.glob("MLFLOW_TRACKING_*"):
            os.environ[path.name] = path.read_text().strip()


class Mlflow:
    """A tracking server. Every method raises StorageUnavailable (after `patience` seconds), CredentialsRefused or InvalidManifest."""

    def __init__(self, tracking: Tracking, job: JobIdentity, *, patience: float, stopping: threading.Event | None = None) -> None:
        """Imports MLflow. When `stopping` is set, nothing is tried again."""
        self.uri = tracking.uri
        self.job = job
        self._external = tracking.external_uri or ("" if tracking.uri.startswith("sqlite") else tracking.uri)
        self._experiment_name = tracking.experiment or job.name
        self._experiment = ""
        self._patience = patience
        self._stopping = stopping or threading.Event()
        load_credentials()
        for name, value in (
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),  # it is tried again here, with jitter and an end
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("GIT_PYTHON_REFRESH", "quiet"),
        ):
            os.environ.setdefault(name, value)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        import mlflow
        from mlflow import MlflowClient

        mlflow.set_tracking_uri(tracking.uri)  # the registry looks for a LoggedModel there, whatever its client was told
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self.client: Any = self.call(lambda: MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri))

    def call(self, function: Callable[[], T]) -> T:
        """What the function returns; tried again with jitter while the server is out of reach."""
        deadline = time.monotonic() + self._patience
        wait = 0.5
        while True:
            try:
                return function()
            except KompressError:
                raise
            except Exception as error:
                ours = translate(error, self.uri)
                if not isinstance(ours, StorageUnavailable) or time.monotonic() + wait > deadline or self._stopping.is_set():
                    raise ours from error
                log.warning("%s; trying again in %.1f s", ours, wait)
            self._stopping.wait(wait * random.uniform(0.5, 1.0))
            wait = min(30.0, wait * 2)

    @property
    def experiment(self) -> str:
        """Id of the experiment, made when it is not there."""
        if not self._experiment:
            self._experiment = self._find_or_make_experiment()
        return self._experiment

    def open_parent(self, tags: Mapping[str, str] | None = None) -> str:
        """Id of the job's run. Made when there is none; of several made at once the oldest wins and the others are deleted."""
        if found := self.find_parent():
            return found
        made = self._create(self.job.name, {TAG_ROLE: JOB, **(tags or {})})
        winner = self.find_parent() or made
        if winner != made:
            self.call(lambda: self.client.delete_run(made))
        return winner

    def find_parent(self) -> str:
        """Id of the job's run, empty when there is none."""
        runs = self._search({TAG_ROLE: JOB})
        return runs[0].info.run_id if runs else ""

    def open_nested(self, parent: str, stage: str, attempt: int, tags: Mapping[str, str] | None = None) -> str:
        """Id of the run of a stage's attempt."""
        own = {TAG_ROLE: ATTEMPT, TAG_STAGE: stage, TAG_ATTEMPT: str(attempt)}
        if runs := self._search(own):
            return str(runs[0].info.run_id)
        return self._create(f"{stage}-{attempt}", {**own, TAG_PARENT: parent, **(tags or {})})

    def end_dangling(self, stage: str = "", *, before: int | None = None) -> list[str]:
        """End as KILLED the nested runs that nobody ended: of all stages, or of one stage's attempts before this one."""
        killed = []
        for run in self._search({TAG_ROLE: ATTEMPT} | ({TAG_STAGE: stage} if stage else {}), status="RUNNING"):
            if before is None or int(run.data.tags.get(TAG_ATTEMPT, "0")) < before:
                self.end(run.info.run_id, "KILLED")
                killed.append(run.info.run_id)
        return killed

    def log(
        self,
        run: str,
        metrics: Iterable[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log any number of each, in batches. Sending the same again changes nothing."""
        from mlflow.entities import Metric as MlflowMetric
        from mlflow.entities import Param, RunTag

        points = [MlflowMetric(metric_key(m.key), m.value, m.timestamp, m.step) for m in metrics]
        settings = [Param(metric_key(key), value[:MAX_VALUE]) for key, value in (params or {}).items()]
        labels = [RunTag(key, value[:MAX_VALUE]) for key, value in (tags or {}).items()]
        while points or settings or labels:
            room = MAX_METRICS - len(settings[:MAX_PARAMS]) - len(labels[:MAX_TAGS])
            batch = {"metrics": points[:room], "params": settings[:MAX_PARAMS], "tags": labels[:MAX_TAGS]}
            self.call(partial(self.client.log_batch, run, **batch))
            points, settings, labels = points[room:], settings[MAX_PARAMS:], labels[MAX_TAGS:]

    def dataset(self, run: str, name: str, digest: str, source: str, context: str) -> None:
        """Name the data that a run is about."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entry = Dataset(name=name[:500], digest=digest.removeprefix("sha256:")[:36], source_type="kompress", source=source)
        self.call(lambda: self.client.log_inputs(run, [DatasetInput(entry, [InputTag("mlflow.data.context", context)])]))

    def artifact(self, run: str, path: Path, folder: str = "") -> None:
        """Keep a file, or a folder's files, with the run."""
        send = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        self.call(lambda: send(run, str(path), folder or None))

    def models(self, tags: Mapping[str, str]) -> list[Any]:
        """The experiment's LoggedModels with these tags, the oldest first."""
        text = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        order = [{"field_name": "creation_time", "ascending": True}]
        found = self.call(lambda: self.client.search_logged_models([self.experiment], text, order_by=order))
        return list(found)

    def fill_model(self, run: str, model: str, folder: Path, metrics: Iterable[Metric]) -> None:
        """Give a LoggedModel its files and figures, and say that it is ready. Doing it again changes nothing."""
        from mlflow.entities import Metric as MlflowMetric

        self.call(lambda: self.client.log_model_artifacts(model, str(folder)))
        points = [MlflowMetric(metric_key(m.key), m.value, m.timestamp, m.step, model_id=model, run_id=run) for m in metrics]
        self.call(lambda: self.client.log_batch(run, metrics=points))
        self.call(lambda: self.client.finalize_logged_model(model, "READY"))

    def show_output(self, run: str, model: str, step: int) -> None:
        """Name a LoggedModel as what the run gave, once."""
        from mlflow.entities import LoggedModelOutput

        shown = self.call(lambda: self.client.get_run(run)).outputs
        if model not in [output.model_id for output in (shown.model_outputs if shown else [])]:
            self.call(lambda: self.client.log_outputs(run, [LoggedModelOutput(model, step)]))

    def end(self, run: str, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        self.call(lambda: self.client.set_terminated(run, status))

    def runs(self) -> list[Any]:
        """The nested runs of the job."""
        return self._search({TAG_ROLE: ATTEMPT})

    def url(self, run: str) -> str:
        """Page of a run for people; empty where there is no server (sqlite)."""
        if not self._external:
            return ""
        return f"{self._external.rstrip('/')}/#/experiments/{self.experiment}/runs/{run}?workflowType=machine_learning"

    def compare_url(self, runs: Iterable[str]) -> str:
        """Page that lays runs side by side."""
        if not self._external:
            return ""
        ids = ",".join(f'"{run}"' for run in runs)
        base = f"{self._external.rstrip('/')}/#/compare-runs"
        return f'{base}?runs=[{ids}]&experiments=["{self.experiment}"]&workflowType=machine_learning'

    def _find_or_make_experiment(self) -> str:
        name = self._experiment_name
        found = self.call(lambda: self.client.get_experiment_by_name(name))
        if found is None:
            # Without a server MLflow would put artifacts below the working directory.
            location = (
                f"{Path(self.uri.removeprefix('sqlite:///')).absolute().parent}/mlartifacts" if self.uri.startswith("sqlite") else None
            )
            try:
                return str(self.call(lambda: self.client.create_experiment(name, artifact_location=location)))
            except InvalidManifest:
                found = self.call(lambda: self.client.get_experiment_by_name(name))  # another job has just made it
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise InvalidManifest(
                f"the MLflow experiment {name!r} was deleted",
                field="spec.tracking.experiment",
                hint="name another one, or restore it (mlflow experiments restore)",
            )
        return str(found.experiment_id)

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        own = {TAG_UID: self.job.uid, TAG_JOB: self.job.name, TAG_NAMESPACE: self.job.namespace}
        run = self.call(lambda: self.client.create_run(self.experiment, tags={**own, **tags}, run_name=name))
        return str(run.info.run_id)

    def _search(self, tags: Mapping[str, str], *, status: str = "") -> list[Any]:
        """The job's runs with these tags, the oldest first."""
        wanted = {TAG_UID: self.job.uid, **tags}
        text = " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
        text += f" and attributes.status = '{status}'" if status else ""
        order = ["attributes.start_time ASC", "attributes.run_id ASC"]
        found: list[Any] = []
        token = None
        while True:
            page = self.call(partial(self.client.search_runs, [self.experiment], text, order_by=order, page_token=token))
            found += page
            token = page.token
            if not token:
                return found
