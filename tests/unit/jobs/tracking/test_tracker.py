"""What a worker tells arrives in MLflow, whatever becomes of the server meanwhile, and never holds the stage up."""

from pathlib import Path

import pytest

from kompress_api.contract import StageInput, StageSuccess
from kompress_jobs.events import Events
from kompress_jobs.storage.store import open_store
from kompress_jobs.tracking import spool
from kompress_jobs.tracking.tracker import Tracker

from .conftest import eventually


@pytest.fixture
def stage(tmp_path, job, server) -> StageInput:
    return StageInput.model_validate(
        {
            "job": job.dump(),
            "kind": "fineTune",
            "name": "adapt",
            "attempt": 1,
            "task": "image-classification",
            "seed": 3,
            "evaluation": {},
            "model": {"source": "timm://resnet18"},
            "dataset": {"source": "builtin://digits"},
            "output": {"uri": f"file://{tmp_path}/output"},
            "tracking": {"uri": server.uri, "experiment": "flowers"},
            "stage": {"name": "adapt", "fineTune": {"epochs": 2, "earlyStopping": {"patience": 4}}},
        }
    )


@pytest.fixture
def scratch(tmp_path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def steps(server, run: str, key: str) -> list[int]:
    return [metric.step for metric in server.client.get_metric_history(run, key)]


def test_a_stage_becomes_a_nested_run_with_its_settings_figures_and_end(server, stage, scratch):
    tracker, events = Tracker(stage, scratch, {"FINISHED": 400}), Events(scratch)
    tracker.start()
    events.dataset("builtin://digits", "sha256:" + "0" * 64, "builtin://digits")
    for step in range(3):
        events.metrics({"train/loss": 1.0 / (step + 1)}, step)
    events.metrics({"train/loss": float("nan")}, 3)
    (scratch / "confusion.txt").write_text("1 0")
    events.artifact(scratch / "confusion.txt", "evaluation")
    run_id = tracker.finish(StageSuccess(metrics={"accuracy": 0.9}, digest="sha256:1")).mlflow_run_id
    run = server.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == server.find_parent()
    assert run.data.tags["kompress.digest"] == "sha256:1"
    assert run.data.params["seed"] == "3"
    assert run.data.params["earlyStopping.patience"] == "4"
    assert run.data.metrics["accuracy"] == 0.9
    assert steps(server, run_id, "train/loss") == [0, 1, 2]
    assert any("nan" in value for key, value in run.data.tags.items() if key.startswith("kompress.warning"))
    assert run.inputs.dataset_inputs[0].dataset.name == "builtin://digits"
    assert [found.path for found in server.client.list_artifacts(run_id, "evaluation")] == ["evaluation/confusion.txt"]
    assert tracker.all_kept


def test_a_server_that_is_down_for_a_while_loses_no_metric(server, stage, scratch, restartable):
    stage = stage.model_copy(update={"tracking": stage.tracking.model_copy(update={"uri": restartable.uri})})
    tracker, events = Tracker(stage, scratch, {"FINISHED": 400}), Events(scratch)
    tracker.start()
    events.metrics({"loss": 0.5}, 0)
    eventually(lambda: tracker.run_id and steps(server, tracker.run_id, "loss") == [0])
    restartable.stop()
    for step in range(1, 200):
        events.metrics({"loss": 0.5}, step)
    assert events.unsent(), "a checkpoint taken now must carry them"
    restartable.start()
    run_id = tracker.finish(StageSuccess()).mlflow_run_id
    assert steps(server, run_id, "loss") == list(range(200))
    assert events.unsent() == []
    assert server.client.get_run(run_id).info.status == "FINISHED"


def test_what_a_server_that_stays_down_did_not_get_lies_in_the_output(job, stage, scratch):
    stage = stage.model_copy(update={"tracking": stage.tracking.model_copy(update={"uri": "http://127.0.0.1:9"})})
    tracker, events = Tracker(stage, scratch, {"FINISHED": 1}), Events(scratch)
    tracker.start()
    events.metrics({"loss": 0.5}, 7)
    assert tracker.finish(StageSuccess()).mlflow_run_id == ""
    ((_, name, attempt, kept),) = spool.left(open_store(stage.output, "output"), job.uid)
    assert (name, attempt) == ("adapt", 1)
    assert [event["values"] for event in kept if event["type"] == "metrics"] == [{"loss": 0.5}]
    assert tracker.all_kept


def test_another_pod_takes_over_what_the_first_could_not_send(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    events = Events(first)
    events.metrics({"loss": 0.5}, 7)
    events.metrics({"system/cpu_utilization_percentage": 50.0}, 1)
    events.progress(7, 10, "steps")
    Events(second).replay(events.unsent())
    (taken,) = spool.Spool(second).rest()
    assert (taken["values"], taken["step"]) == ({"loss": 0.5}, 7)
    assert taken["time"] == events.unsent()[0]["time"]


def test_only_rank_0_tells(tmp_path):
    events = Events(tmp_path, rank=1)
    events.metrics({"loss": 0.5}, 7)
    assert events.unsent() == []
    assert list(tmp_path.iterdir()) == []
