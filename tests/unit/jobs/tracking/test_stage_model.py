"""Every stage's model is a row of the experiment's Models tab, once, however often it is told, whatever becomes of MLflow meanwhile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kompress_api.contract import JobIdentity, StageInput, StageSuccess
from kompress_api.places import Output, Tracking
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.store import open_store
from kompress_jobs.tracking.mlflow import Mlflow
from kompress_jobs.tracking.publication import send_what_was_left
from kompress_jobs.tracking.tracker import Tracker

STAGES: dict[str, dict[str, Any]] = {
    "adapt": {"fineTune": {"epochs": 2}},
    "ship": {"export": {"formats": [{"type": "ONNX"}], "targets": [{"device": "CPU"}]}},
}
DESCRIBED = {
    "labels": ["a", "b", "c"],
    "preprocessing": {"type": "image", "imageSize": 8, "channels": 1, "mean": [0.5], "std": [0.5]},
    "inputs": [{"name": "input", "shape": [-1, 1, 8, 8], "dtype": "float32"}],
}
FILES: dict[str, dict[str, bytes]] = {
    "adapt": {"bundle.json": json.dumps(DESCRIBED).encode(), "model.safetensors": b"w" * 10_000},
    "ship": {
        "export.json": json.dumps(DESCRIBED | {"files": [{"file": "model.onnx", "type": "ONNX", "batch": None}]}).encode(),
        "model.onnx": b"w" * 10_000,
    },
}
FIGURES = {"accuracy": 0.9, "parameters": 1e6, "baseline.accuracy": 0.8, "latencyP50Ms@ONNX/cpu1/32": 3.0}
Tell = Callable[..., str]


@pytest.fixture
def tracking(database: str, job: JobIdentity) -> Tracking:
    """An experiment of the test's own."""
    return Tracking(uri=database, experiment=job.uid)


@pytest.fixture
def server(tracking: Tracking, job: JobIdentity) -> Mlflow:
    return Mlflow(tracking, job, patience=5)


@pytest.fixture
def tell(tmp_path: Path, tracking: Tracking, job: JobIdentity) -> Tell:
    """tell(name, ...): the stage ends well, as its launcher tells MLflow; returns the run's id."""

    def telling(
        name: str, *, by: JobIdentity = job, place: Tracking = tracking, attempt: int = 1, seconds: float = 400, files: Any = None
    ) -> str:
        told = {"job": by.dump(), "attempt": attempt, "tracking": place.dump(), "output": {"uri": f"file://{tmp_path}/output"}}
        told |= {"task": "image-classification", "seed": 0, "evaluation": {}, "dataset": {"source": "builtin://digits"}}
        told |= {"kind": next(iter(STAGES[name])), "name": name, "stage": {"name": name} | STAGES[name]}
        stage = StageInput.model_validate(told | {"model": {"source": "timm://resnet18"}})
        folder = tmp_path / f"made-{by.uid}-{name}-{attempt}"
        folder.mkdir(exist_ok=True)
        for file, content in (files or FILES[name]).items():
            (folder / file).write_bytes(content)
        key = name.ljust(64, "0")
        commit = artifacts.commit(open_store(stage.output, "output"), key, by.uid, attempt, folder, FIGURES, {}, [])
        scratch = tmp_path / f"scratch-{by.uid}-{name}-{attempt}-{place.experiment}"
        scratch.mkdir(exist_ok=True)
        tracker = Tracker(stage, scratch, {"FINISHED": seconds})
        tracker.start()
        message = tracker.finish(StageSuccess(artifact=commit.uri, digest=commit.digest, key=key, metrics=FIGURES))
        assert isinstance(message, StageSuccess)
        assert tracker.all_kept
        return message.mlflow_run_id

    return telling


def rows(server: Mlflow) -> list[Any]:
    """What the Models tab shows."""
    return list(server.client.search_logged_models([server.experiment]))


def test_stages_of_all_kinds_are_rows_with_the_same_figures_and_each_leads_to_its_run_and_its_artifact(
    server: Mlflow, tell: Tell, tmp_path: Path
) -> None:
    import mlflow

    runs = {name: tell(name) for name in STAGES}
    found = {model.name: model for model in rows(server)}
    assert set(found) == {"flowers-adapt", "flowers-ship"}
    for name, files in FILES.items():
        model, run = found[f"flowers-{name}"], server.client.get_run(runs[name])
        assert model.status == "READY"
        assert {metric.key: metric.value for metric in model.metrics} == {"accuracy": 0.9, "parameters": 1e6}
        assert model.source_run_id == runs[name]
        assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
        assert {model.tags[f"kompress.{tag}"] for tag in ("artifact", "digest", "key")} == {
            run.data.tags[f"kompress.{tag}"] for tag in ("artifact", "digest", "key")
        }
        assert run.data.metrics["latencyP50Ms/ONNX/cpu1/32"] == 3.0
        assert len(server.client.get_metric_history(runs[name], "accuracy")) == 1, "one point, the run's and the model's"
        kept = Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}", dst_path=str(tmp_path / name)))
        assert {path.name for path in kept.iterdir()} - {"registered_model_meta"} == {"MLmodel", next(iter(files))}, "no weights"
        signature = mlflow.models.Model.load(str(kept / "MLmodel")).signature
        assert (signature.inputs.inputs[0].shape, signature.outputs.inputs[0].shape) == ((-1, 1, 8, 8), (-1, 3))


def test_what_is_told_twice_and_what_another_attempt_or_job_takes_over_stays_one_row(
    server: Mlflow, tell: Tell, job: JobIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    other = JobIdentity(name="petals", namespace="ml", uid=f"{job.uid}-other")
    runs = [tell("adapt"), tell("adapt"), tell("adapt", attempt=2), tell("adapt", by=other)]
    (model,) = rows(server)
    assert model.source_run_id == runs[0]
    for run in set(runs):
        outputs = server.client.get_run(run).outputs.model_outputs
        assert [output.model_id for output in outputs] == [model.model_id], "the run that reused it leads to it too"
    assert "refuses" not in caplog.text


def test_an_experiment_without_the_reused_model_gets_it(server: Mlflow, tell: Tell, job: JobIdentity, database: str) -> None:
    tell("adapt")
    other = JobIdentity(name="petals", namespace="ml", uid=f"{job.uid}-other")
    place = Tracking(uri=database, experiment=other.uid)
    tell("adapt", by=other, place=place)
    assert [model.name for model in rows(Mlflow(place, other, patience=5))] == ["petals-adapt"]
    assert [model.name for model in rows(server)] == ["flowers-adapt"]


def test_a_pod_that_died_between_two_calls_leaves_no_half_row_behind(server: Mlflow, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Died(BaseException):
        """Nothing catches it, as nothing catches a kill."""

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(Mlflow, "fill_model", die)
        patched.setattr("threading.excepthook", lambda _: None)
        tell("adapt")
    (half,) = rows(server)
    assert half.status == "PENDING"
    tell("adapt", attempt=2)
    (whole,) = rows(server)
    assert (whole.model_id, whole.status) == (half.model_id, "READY")
    assert {metric.key for metric in whole.metrics} == {"accuracy", "parameters"}


def test_a_server_that_is_down_at_the_end_of_a_stage_gets_the_model_from_the_report(
    tell: Tell, tmp_path: Path, job: JobIdentity, tracking: Tracking, restartable
) -> None:
    place = tracking.model_copy(update={"uri": restartable.uri})
    restartable.stop()
    assert tell("adapt", place=place, seconds=1) == ""
    restartable.start()
    server = Mlflow(place, job, patience=60)
    for _ in range(2):
        store = open_store(Output(uri=f"file://{tmp_path}/output"), "output")
        send_what_was_left(server, store, server.open_parent())
    (model,) = rows(server)
    assert model.status == "READY"
    assert {metric.key: metric.value for metric in model.metrics} == {"accuracy": 0.9, "parameters": 1e6}
    (run,) = server.runs()
    assert (run.info.run_id, run.info.status) == (model.source_run_id, "FINISHED")


@pytest.mark.parametrize("files", [{"bundle.json": b"{"}, {"bundle.json": b"{}"}, {"notes.txt": b"no model"}])
def test_an_artifact_that_no_one_can_describe_costs_its_row_and_nothing_else(server: Mlflow, tell: Tell, files: dict[str, bytes]) -> None:
    run = server.client.get_run(tell("adapt", files=files, seconds=60))
    assert rows(server) == []
    assert (run.info.status, run.data.metrics["accuracy"]) == ("FINISHED", 0.9)
