"""Runs are found before they are made, ended when nobody else does, and MLflow's errors become ours."""

import pytest

from kompress_api.errors import CredentialsRefused, InvalidManifest, StorageUnavailable
from kompress_api.places import Tracking
from kompress_jobs.tracking.mlflow import JOB, TAG_ROLE, Metric, Mlflow, translate


def test_one_job_has_one_parent_run_however_often_it_is_opened(server, job, database):
    first = server.open_parent()
    again = Mlflow(Tracking(uri=database, experiment="flowers"), job, patience=5).open_parent()
    assert again == first


def test_of_two_parents_made_at_once_the_oldest_wins_and_the_other_goes(server, monkeypatch):
    oldest = server._create("flowers", {TAG_ROLE: JOB})
    answers = iter(["", oldest])  # the first search saw nothing: the other preflight had not written yet
    monkeypatch.setattr(server, "find_parent", lambda: next(answers))
    assert server.open_parent() == oldest
    monkeypatch.undo()
    assert [run.info.run_id for run in server._search({TAG_ROLE: JOB})] == [oldest]


def test_a_new_attempt_ends_the_run_that_an_earlier_one_left_running(server):
    parent = server.open_parent()
    first, other = server.open_nested(parent, "adapt", 1), server.open_nested(parent, "slim", 1)
    second = server.open_nested(parent, "adapt", 2)
    assert server.end_dangling("adapt", before=2) == [first]
    status = {run.info.run_id: run.info.status for run in server.runs()}
    assert status == {first: "KILLED", second: "RUNNING", other: "RUNNING"}
    assert set(server.end_dangling()) == {second, other}


def test_more_than_one_batch_of_metrics_arrives_whole(server):
    run = server.open_parent()
    server.log(run, [Metric("loss", float(step), 1000 + step, step) for step in range(2500)], params={"epochs": "3"}, tags={"a": "b"})
    assert len(server.client.get_metric_history(run, "loss")) == 2500
    data = server.client.get_run(run).data
    assert (data.params["epochs"], data.tags["a"]) == ("3", "b")


def test_a_figure_of_an_exported_model_gets_a_name_that_mlflow_takes(server):
    run = server.open_parent()
    server.log(run, [Metric("latencyP50Ms@ONNX/cpu1/32", 1.5, 1, 0)])
    assert server.client.get_run(run).data.metrics == {"latencyP50Ms/ONNX/cpu1/32": 1.5}


def test_artifacts_of_sqlite_lie_beside_the_database(server, tmp_path, database):
    run = server.open_parent()
    (tmp_path / "report.html").write_text("<html>")
    server.artifact(run, tmp_path / "report.html", "report")
    assert [found.path for found in server.client.list_artifacts(run, "report")] == ["report/report.html"]
    assert database.removeprefix("sqlite:///").rsplit("/", 1)[0] in server.client.get_run(run).info.artifact_uri


def test_a_deleted_experiment_is_named(database, job):
    server = Mlflow(Tracking(uri=database, experiment="gone"), job, patience=0)
    server.client.delete_experiment(server.experiment)
    with pytest.raises(InvalidManifest, match="'gone' was deleted") as caught:
        Mlflow(Tracking(uri=database, experiment="gone"), job, patience=0).open_parent()
    assert caught.value.field == "spec.tracking.experiment"


def test_a_server_out_of_reach_is_unavailable_after_the_patience(job):
    server = Mlflow(Tracking(uri="http://127.0.0.1:9", experiment="x"), job, patience=0)
    with pytest.raises(StorageUnavailable, match="out of reach"):
        server.open_parent()


def test_every_error_code_of_mlflow_has_a_meaning_here():
    """Exit codes rest on this: a code that a new MLflow adds is retryable until someone says otherwise."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    told = {name: type(translate(MlflowException("x", error_code=number), "uri")) for name, number in ErrorCode.items()}
    refused = {name for name, kind in told.items() if kind is CredentialsRefused}
    assert refused == {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
    for name in (
        "INTERNAL_ERROR",
        "TEMPORARILY_UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "REQUEST_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "ABORTED",
    ):
        assert told[name] is StorageUnavailable, name
    for name in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST"):
        assert told[name] is InvalidManifest, name


def test_every_exception_of_mlflow_is_mapped():
    import mlflow.exceptions

    kinds = [kind for kind in vars(mlflow.exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 10
    for kind in kinds:
        error = kind.__new__(kind)
        assert isinstance(translate(error, "uri"), StorageUnavailable | InvalidManifest | CredentialsRefused)
    assert isinstance(translate(mlflow.exceptions.InvalidUrlException("no url"), "uri"), InvalidManifest)
