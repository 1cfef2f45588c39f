"""The commands that work with CompressionJobs of a cluster. They only read and write the CompressionJob itself.

Errors of the API server and of the kubeconfig are told at this one boundary (`Cluster`), in the server's own words.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from rich.box import SIMPLE_HEAD
from rich.table import Table

from kompress_api.manifest import CompressionJob, Manifest
from kompress_api.names import API_VERSION, GROUP, PLURAL, RUNTIME_PLURAL
from kompress_api.status import CompressionJobStatus
from kompress_operator.cli.exits import Exit, fail
from kompress_operator.cli.manifests import read_or_fail
from kompress_operator.cli.tables import console, goals_table, report_of, stages_table

Json = dict[str, Any]
FIELD_MANAGER = "kompress-cli"
REFUSED_SPEC = (400, 422)
"""Statuses of the API server that say: the manifest is wrong."""


class Cluster:
    """An API server, one namespace of it, and what it says when it refuses."""

    def __init__(self, client: Any, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    def call(self, method: str, path: str, body: object = None, *, query: Json | None = None, content: str = "", accept: str = "") -> Json:
        """One request; the answer's JSON. Ends the command where the server refuses or can't be reached."""
        headers = {"Accept": accept or "application/json", "Content-Type": content or "application/json"}
        parameters = list((query or {}).items())
        with self.errors():
            request = self.client.param_serialize(
                method, path, query_params=parameters, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            answer = self.client.call_api(*request)
            answer.read()
            data = self.client.response_deserialize(answer, {"2XX": "object"}).data
        return dict(data)

    def jobs(self, name: str = "") -> str:
        """Path of a CompressionJob, or of all of the namespace."""
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/{PLURAL}" + (f"/{name}" if name else "")

    def job(self, name: str) -> Json:
        """A CompressionJob, as it is there."""
        return self.call("GET", self.jobs(name))

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Ends the command with the server's own words."""
        from kubernetes.client.rest import ApiException  # type: ignore[attr-defined]
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            _refused(error)
        except HTTPError as error:
            why = getattr(error, "reason", error)
            fail(f"the API server at {self.client.configuration.host} can't be reached: {why}", hint="see `kubectl cluster-info`")


def connect(namespace: str, context: str) -> Cluster:
    """The cluster of the kubeconfig, or of the pod that this runs in; ends the command where there is none."""
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        config.load_kube_config(client_configuration=configuration, context=context or None)  # type: ignore[no-untyped-call]
        _, current = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
        contexts = {entry["name"]: entry for entry in config.list_kube_config_contexts()[0]}  # type: ignore[no-untyped-call]
        own = contexts[context] if context else current
        namespace = namespace or own["context"].get("namespace", "default")
    except config.ConfigException as error:
        try:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            fail(f"no cluster: {error}", hint="set KUBECONFIG, or use `kompress run` for this machine")
    return Cluster(client.ApiClient(configuration), namespace or "default")


def submit(files: Sequence[pathlib.Path], namespace: str, context: str, *, as_json: bool) -> None:
    """Server-side apply of every object of every file, once all of them were found valid."""
    objects = [entry for path in files for entry in read_or_fail(path)]
    cluster = connect(namespace, context)
    applied = [_apply(entry, cluster) for entry in objects]
    if as_json:
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": applied}, indent=2))
        return
    for entry in applied:
        print(f"{entry['kind'].lower()}.{GROUP}/{entry['metadata']['name']} applied")


def get(job: str, cluster: Cluster, *, as_json: bool) -> None:
    """The server's own table: the columns are those of `kubectl get`."""
    path = cluster.jobs(job)
    if as_json:
        print(json.dumps(cluster.call("GET", path), indent=2))
        return
    shown = cluster.call("GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    columns = [index for index, column in enumerate(shown["columnDefinitions"]) if column["priority"] == 0]
    table = Table(*(shown["columnDefinitions"][index]["name"] for index in columns), box=SIMPLE_HEAD)
    for row in shown["rows"]:
        table.add_row(*("" if row["cells"][index] is None else str(row["cells"][index]) for index in columns))
    console().print(table)


def describe(job: str, cluster: Cluster, *, as_json: bool) -> None:
    """The whole status."""
    found = cluster.job(job)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    status = CompressionJobStatus.model_validate(found.get("status") or {})
    out = console()
    print(f"{cluster.namespace}/{job}: {status.phase}")
    for condition in status.conditions:
        print(f"  {condition.type}={condition.status} {condition.reason} since {condition.last_transition_time}: {condition.message}")
    if status.stages:
        out.print(stages_table(status))
        out.print(_attempts(status))
    if status.goals:
        out.print(goals_table(status.goals))
    for name, place in {"report": report_of(status), "metrics": status.mlflow_run_url}.items():
        if place:
            print(f"{name}: {place}")


def set_suspended(job: str, suspend: bool, cluster: Cluster, *, as_json: bool) -> None:
    """Writes spec.suspend."""
    patch = {"spec": {"suspend": suspend}}
    changed = cluster.call("PATCH", cluster.jobs(job), patch, content="application/merge-patch+json")
    print(json.dumps(changed, indent=2) if as_json else f"compressionjob.{GROUP}/{job} {'suspended' if suspend else 'resumed'}")


def delete(job: str, cluster: Cluster, *, as_json: bool) -> None:
    """Its Jobs and pods follow by their ownerReferences."""
    gone = cluster.call("DELETE", cluster.jobs(job), {"propagationPolicy": "Background"})
    print(json.dumps(gone, indent=2) if as_json else f"compressionjob.{GROUP}/{job} deleted")


def _apply(entry: Manifest, cluster: Cluster) -> Json:
    body = entry.dump()
    if isinstance(entry, CompressionJob):
        path = cluster.jobs(entry.metadata.name)
        body["metadata"]["namespace"] = cluster.namespace
    else:
        path = f"/apis/{API_VERSION}/{RUNTIME_PLURAL}/{entry.metadata.name}"
    body["metadata"] = {name: value for name, value in body["metadata"].items() if value}
    body.pop("status", None)
    query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": "true"}
    return cluster.call("PATCH", path, body, query=query, content="application/apply-patch+yaml")


def _attempts(status: CompressionJobStatus) -> Table:
    table = Table("stage", "attempt", "started", "ended", "outcome", "where", "message", box=SIMPLE_HEAD)
    for entry in status.stages:
        for attempt in entry.attempts:
            where = [f"rank {attempt.rank}" if attempt.rank is not None else "", attempt.pod, attempt.node]
            code = f"exit {attempt.exit_code}" if attempt.exit_code is not None else ""
            shown = ", ".join(part for part in (*where, code) if part)
            table.add_row(
                entry.name, str(attempt.attempt), attempt.started_at, attempt.ended_at or "", attempt.outcome, shown, attempt.message
            )
    return table


def _refused(error: Any) -> NoReturn:
    try:
        said = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        said = f"{error.status} {error.reason}"
    hint = "install the chart: the cluster does not know CompressionJobs" if said.startswith("404 page not found") else ""
    fail(said, hint=hint, code=Exit.INVALID if error.status in REFUSED_SPEC else Exit.FAILED)
