"""The report of a job, from real manifests in a real store to a page that stands alone and a run that is closed once."""

import dataclasses
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy
import onnx
import pytest
from onnx import TensorProto, helper

from kompress_api.contract import StageInput
from kompress_api.places import Dataset
from kompress_jobs.evaluation import measurements
from kompress_jobs.events import Events
from kompress_jobs.measure import predictions
from kompress_jobs.measure.predictions import Predictions, Spoken
from kompress_jobs.planning.plan import Plan
from kompress_jobs.report import figures
from kompress_jobs.stages import report
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.store import Store, open_store
from kompress_jobs.tracking import model_files, spool
from kompress_jobs.tracking import publication as publications
from kompress_jobs.tracking.mlflow import Mlflow
from kompress_jobs.tracking.publication import Publication

STAGES = [
    {"name": "adapt", "fineTune": {"epochs": 1}},
    {"name": "slim", "prune": {"pruningRatio": 0.5}},
    {"name": "ship", "export": {"formats": [{"type": "ONNX"}], "targets": [{"threads": 1, "batchSizes": [1, 32]}]}},
]
GOALS = [{"metric": "accuracy", "maxDegradation": 0.02}, {"metric": "latencyP50Ms", "minImprovement": 2.0}]


def per_class(zero: float, one: float) -> dict[str, dict[str, float]]:
    spread = 0.02
    return {
        label: {"recall": recall, "low": recall - spread, "high": recall + spread, "samples": 100}
        for label, recall in (("zero", zero), ("one <b>", one))
    }


def said(zero: list[int], one: list[int]) -> bytes:
    """Of 100 samples of each class, those that a model got wrong."""
    targets = numpy.repeat([0, 1], 100)
    predicted = targets.copy()
    predicted[zero] = 1
    predicted[[100 + row for row in one]] = 0
    names = [f"test/{label}/{row}.png" for label in ("zero", "one") for row in range(100)]
    sure = numpy.full(200, 0.75)
    losses = numpy.where(predicted == targets, 0.1, 2.0)
    return predictions.encode(Predictions(["zero", "one <b>"], numpy.arange(200), names, targets, predicted, sure, losses))


BEFORE, AFTER = said(list(range(5)), [0]), said([], list(range(8)))
"""97 % and 96 % right: seven of class one are lost, five of class zero won."""
PRUNED = {
    "layers": [
        {"layer": "layer1.conv1", "before": 64, "now": 24, "why": "the least worth of its scope went"},
        {"layer": "fc", "why": "the head"},
    ],
    "sensitivity": {"loss": 0.1, "accuracy": 0.97, "layers": {"layer1.conv1": [{"ratio": 0.5, "loss": 0.3, "accuracy": 0.912}]}},
    "search": {
        "baseline": 0.97,
        "least": 0.95,
        "ratio": 0.45,
        "trials": [
            {"ratio": r, "accuracy": a, "parameters": p, "macs": p} for r, a, p in ((0.0, 0.97, 900), (0.45, 0.96, 400), (0.6, 0.7, 300))
        ],
        "front": [],
    },
}


class Job:
    """A job whose stages have committed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.evaluation: dict = {}
        self.task = "image-classification"
        self.goals = GOALS
        self.output = {"uri": f"file://{folder}/output"}
        self.tracking = {"uri": f"sqlite:///{folder}/mlflow.db", "experiment": "flowers", "registeredModel": "flowers"}
        self.store: Store = open_store(StageInput.model_validate(self.told([])).output, "output")
        self.outcomes: list[dict] = []

    def commit(self, name: str, metrics: dict, details: dict, files: dict[str, bytes] | None = None) -> None:
        folder = self.folder / f"made-{name}"
        for path, content in (files or {"bundle.json": b"{}"}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        key = str(len(self.outcomes)) * 64
        done = artifacts.commit(self.store, key, "u-1", 1, folder, metrics, details, [])
        self.outcomes.append({"name": name, "state": "Succeeded", "artifact": done.uri, "attempts": 1})

    def change(self, index: int, change: Callable[[dict], None]) -> None:
        """Write a manifest anew."""
        path = f"artifacts/{str(index) * 64}/manifest.json"
        manifest = json.loads(self.store.read(path))
        change(manifest)
        self.store.write(path, json.dumps(manifest).encode())

    def told(self, outcomes: list[dict], **fields) -> dict:
        spec = {
            "task": self.task,
            "model": {"source": "timm://resnet18"},
            "dataset": {"source": "builtin://digits"},
            "output": self.output,
            "tracking": self.tracking,
            "stages": STAGES,
            "goals": self.goals,
            "evaluation": self.evaluation,
        }
        return {
            "job": {"name": "flowers", "namespace": "ml", "uid": "u-1"},
            "kind": "report",
            "name": "report",
            "attempt": 1,
            "task": spec["task"],
            "seed": 0,
            "evaluation": {},
            "model": spec["model"],
            "dataset": spec["dataset"],
            "output": self.output,
            "tracking": self.tracking,
            "spec": spec,
            "stages": [{"name": "preflight", "state": "Succeeded"}, *outcomes],
            **fields,
        }

    def input(self, **fields) -> StageInput:
        return StageInput.model_validate(self.told(self.outcomes, **fields))


def tiny_onnx() -> bytes:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], numpy.ones(8, dtype=numpy.float32))
    nodes = [helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["scores"])]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 2, 2])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture
def job(tmp_path) -> Job:
    made = Job(tmp_path)
    interval = {"accuracy": [0.96, 0.98]}
    made.commit(
        "adapt",
        {"accuracy": 0.97, "parameters": 1e6, "modelSizeBytes": 4e6, "source.accuracy": 0.1},
        {"intervals": interval, "perClass": per_class(0.95, 0.99), "samples": 200},
        {"bundle.json": b"{}", "measurements/test.parquet": BEFORE},
    )
    made.commit(
        "slim",
        {"accuracy": 0.96, "parameters": 3e5, "modelSizeBytes": 1.2e6},
        {"intervals": {"accuracy": [0.95, 0.97]}} | PRUNED,
        {"bundle.json": b"{}", "measurements/test.parquet": AFTER},
    )
    described = {
        "labels": ["zero", "one"],
        "preprocessing": {"type": "image", "imageSize": 2, "channels": 1, "mean": [0.5], "std": [0.5]},
        "inputs": [{"name": "input", "shape": [-1, 1, 2, 2], "dtype": "float32"}],
        "files": [{"file": "model.onnx", "type": "ONNX", "exporter": "onnx", "batch": None}],
    }
    made.commit(
        "ship",
        {
            "accuracy": 0.96,
            "modelSizeBytes": 1.2e6,
            "latencyP50Ms": 1.0,
            "baseline.latencyP50Ms": 3.0,
            "baseline.accuracy": 0.97,
            "latencyP50Ms@ONNX/cpu1/32": 9.0,
            "baseline.latencyP50Ms@ONNX/cpu1/32": 30.0,
        },
        {
            "intervals": {"accuracy": [0.95, 0.97]},
            "perClass": per_class(1.0, 0.92),
            "samples": 200,
            "speedups": [{"format": "ONNX", "target": "cpu1", "batchSize": 1, "value": 3.0, "low": 1.9, "high": 3.2}],
        },
        {
            "export.json": json.dumps(described).encode(),
            "model.onnx": tiny_onnx(),
            "measurements/test.parquet": AFTER,
            "measurements/baseline.parquet": BEFORE,
        },
    )
    return made


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """What MLflow can't do is seen at once."""
    monkeypatch.setattr(publications, "PATIENCE_SECONDS", 2.0)


def run(job: Job, scratch: Path, **fields):
    scratch.mkdir(exist_ok=True)
    return report.run(job.input(**fields), scratch, Events(scratch))


def page_of(job: Job) -> str:
    return job.store.read("jobs/u-1/report.html").decode()


def test_goals_are_judged_with_the_baseline_lowered_alike_and_the_loss_of_each_stage(job, tmp_path):
    told = run(job, tmp_path / "scratch")
    accuracy, latency = told.goals
    assert (accuracy.met, accuracy.value, accuracy.baseline) == (True, 0.96, 0.97)
    assert accuracy.loss == pytest.approx({"slim": -0.01, "ship": 0.0})
    assert (latency.met, latency.value, latency.baseline) == (True, 1.0, 3.0)
    assert told.report == f"{job.store.uri}/jobs/u-1/report.html"
    assert told.metrics["faster"] == 3.0
    assert told.metrics["smaller"] == pytest.approx(4e6 / 1.2e6)


def test_the_page_stands_alone_and_shows_what_got_worse(job, tmp_path):
    run(job, tmp_path / "scratch")
    page = page_of(job)
    assert "All 2 goals met" in page
    assert "Beyond chance: one &lt;b&gt;." in page, "a label is text, never markup"
    assert "<svg" in page
    row = page[page.index("layer1.conv1") :]
    assert re.search(r"64 → 24.*the least worth of its scope went.*50%: 0\.912", row, re.DOTALL), "what pruning took, why, and what it cost"
    assert page.count("chosen") == 1, "of the models that a search tried"
    assert not re.search(r"<script|src=|<link|@import|url\(", page), "nothing is fetched and nothing runs"
    card = job.store.read("jobs/u-1/model-card.md").decode()
    assert "pipeline_tag: image-classification" in card
    assert "| accuracy | 0.9600 (0.9500 to 0.9700) | 0.9700 |" in card


def test_a_loss_is_told_with_what_chance_can_do_and_with_the_samples_that_it_hit(job, tmp_path):
    """Twelve of 200 samples changed sides: the met goal of two points at most would be missed on many another test set."""
    run(job, tmp_path / "scratch")
    told = json.loads(job.store.read("jobs/u-1/comparison.json"))
    accuracy, latency = told["goals"]
    assert (accuracy["met"], accuracy["sure"], latency["met"], latency["sure"]) == (True, False, True, False)
    assert latency["text"] == "3.00 x faster, 95 % interval 1.90 to 3.20", "two times were asked for"
    ship = told["stages"]["ship"]
    assert (ship["mcnemar"]["lost"], ship["mcnemar"]["won"]) == (7, 5)
    assert ship["mcnemar"]["p"] == pytest.approx(0.774, abs=5e-4)
    assert ship["changes"]["accuracy"]["low"] < -0.02 < -0.01 < 0 < ship["changes"]["accuracy"]["high"]
    assert {entry["name"] for entry in ship["flipped"]["lost"]} == {f"test/one/{row}.png" for row in range(1, 8)}
    page = page_of(job)
    row = page[page.index("<td>slim</td><td>200</td>") :]
    assert row.startswith("<td>slim</td><td>200</td><td>7</td><td>5</td><td>0.774</td>")
    assert "could be chance" in page
    assert "test/one/7.png" in page
    card = job.store.read("jobs/u-1/model-card.md").decode()
    assert "Of 200 samples 7 were right before and are wrong now, 5 the other way round (McNemar's exact test: p = 0.774)." in card


def test_predictions_that_were_damaged_cost_the_comparison_and_no_report(job, tmp_path):
    [path] = [entry.key for entry in job.store.list(f"artifacts/{'1' * 64}/") if entry.key.endswith(".parquet")]
    job.store.write(path, BEFORE)
    run(job, tmp_path / "scratch")
    assert set(json.loads(job.store.read("jobs/u-1/comparison.json"))["stages"]) == {"ship"}
    assert "test.parquet has changed since it was committed" in page_of(job)


def test_without_predictions_of_each_sample_intervals_must_do(job, tmp_path):
    """Tasks that answer with more than a label keep none: then it is said of classes whose intervals are apart, and of no goal."""

    def forget(manifest):
        manifest["files"] = [file for file in manifest["files"] if "measurements" not in file["path"]]

    job.change(0, forget)
    job.change(2, forget)
    run(job, tmp_path / "scratch")
    told = json.loads(job.store.read("jobs/u-1/comparison.json"))
    assert told["goals"][0]["text"] == "one measurement, no interval"
    page = page_of(job)
    assert "Beyond chance: one &lt;b&gt;." in page
    assert "sample by sample" not in page


def test_a_report_that_runs_twice_writes_the_same(job, tmp_path):
    first = run(job, tmp_path / "scratch")
    page = page_of(job)
    assert run(job, tmp_path / "scratch", attempt=2) == first
    assert page_of(job) == page


def test_a_failed_job_gets_a_report_of_what_there_is(job, tmp_path):
    job.outcomes[2] = {"name": "ship", "state": "Failed", "attempts": 3, "message": "ParityFailed: 0.7 of the answers differ"}
    told = run(job, tmp_path / "scratch", failure="stage ship failed")
    assert [goal.met for goal in told.goals] == [False, False]
    page = page_of(job)
    assert "Failed: stage ship failed" in page
    assert "ParityFailed: 0.7 of the answers differ" in page
    assert "after 3 attempts" in page


def test_a_commit_that_is_gone_is_said_and_fails_no_report(job, tmp_path):
    job.store.delete([f"artifacts/{'1' * 64}/manifest.json"])
    run(job, tmp_path / "scratch")
    assert "its commit is gone" in page_of(job)


def test_the_interval_of_a_difference_is_newcombes():
    """Newcombe, Statistics in Medicine 17 (1998), table II: 56/70 against 48/80, method 10: 0.0524 to 0.3339."""
    from kompress_jobs.measure.classification import wilson

    change, (low, high) = figures.difference(56 / 70, wilson(56, 70), 48 / 80, wilson(48, 80))
    assert (round(change, 4), round(low, 4), round(high, 4)) == (0.2, 0.0524, 0.3339)


def test_other_data_are_told_beside_the_test_split_and_what_was_not_measured_is_said(job, tmp_path):
    job.evaluation = {"datasets": [{"source": "builtin://docstrings"}, {"source": "file:///elsewhere", "format": "csv"}]}
    identity = {"name": "flowers", "uid": "u-1"}
    planned = Plan.model_validate({"job": identity, "data": {"digest": "d"}, "datasets": ["d0", "d1"], "sourceKey": "k"})
    job.store.write("jobs/u-1/plan.json", json.dumps(planned.dump()).encode())
    about = {"metrics": {"accuracy": 0.97}, "intervals": {"accuracy": [0.9, 0.99]}, "samples": 200}
    for index, content in ((0, BEFORE), (2, AFTER)):
        commit = artifacts.find(job.store, str(index) * 64)
        dataset = Dataset.model_validate(job.evaluation["datasets"][0])
        said_there = dataclasses.replace(predictions.decode(content), about=about)
        job.store.write(measurements.place_of(commit, dataset, "d0", "test"), predictions.encode(said_there))
    run(job, tmp_path / "scratch", plan=f"{job.store.uri}/jobs/u-1/plan.json")
    first, second = json.loads(job.store.read("jobs/u-1/comparison.json"))["datasets"]
    assert (first["comparison"]["mcnemar"]["lost"], first["comparison"]["mcnemar"]["won"]) == (7, 5)
    assert first["baseline"] == first["final"] == about
    assert (second["source"], second["comparison"]) == ("file:///elsewhere", None)
    page = page_of(job)
    assert re.search(r"builtin://docstrings</td><td>200</td><td>0\.9700", page)
    assert re.search(r"file:///elsewhere</td><td>-</td><td>not measured", page)
    assert "builtin://docstrings`: accuracy 0.9700, adapt 0.9700" in job.store.read("jobs/u-1/model-card.md").decode()


def test_seeds_tell_how_much_of_a_figure_is_luck(job, tmp_path):
    """Three trainings at 0.96, 0.94 and 0.98: the goal was met by luck."""

    def seeds(manifest):
        runs = [{"seed": seed, "metrics": {"accuracy": value}} for seed, value in enumerate((0.96, 0.94, 0.98))]
        manifest["details"]["seeds"] = runs

    job.change(1, seeds)
    job.goals = [{"metric": "accuracy", "maxDegradation": 0.02, "stage": "slim"}]
    run(job, tmp_path / "scratch")
    told = json.loads(job.store.read("jobs/u-1/comparison.json"))
    [found] = told["seeds"]["slim"]
    assert found["mean"] == pytest.approx(0.96)
    assert found["deviation"] == pytest.approx(0.02)
    assert told["goals"][0]["text"].endswith("holds for 2 of 3 seeds")
    assert "0.9600 ± 0.0200" in page_of(job)
    assert "slim over 3 seeds: accuracy 0.9600 ± 0.0200 (0.9400 to 0.9800)" in job.store.read("jobs/u-1/model-card.md").decode()


def test_mlflow_gets_summary_report_and_one_registered_version_however_often_it_is_told(job, tmp_path):
    server = Mlflow(job.input().tracking, job.input().job, patience=0)
    parent = server.open_parent()
    dangling = server.open_nested(parent, "slim", 1)
    spool.leave(job.store, "u-1", "adapt", 1, [{"type": "metrics", "time": 1, "step": 4, "values": {"loss": 0.5}}])
    for attempt in (1, 2):
        scratch = tmp_path / f"scratch-{attempt}"
        told = run(job, scratch, attempt=attempt)
        publication = Publication(job.input(attempt=attempt), scratch, threading.Event())
        publication.start()
        message = publication.finish(told)
        assert message.outcome == "Succeeded", message
        assert message.parent_run_id == parent
    found = server.client.get_run(parent)
    assert found.info.status == "FINISHED"
    assert found.data.metrics["faster"] == 3.0
    assert "| accuracy | 0.9600 (0.9500 to 0.9700) | 0.9700 |" in found.data.tags["mlflow.note.content"]
    assert {entry.path for entry in server.client.list_artifacts(parent)} == {"report.html", "model-card.md", "comparison.json"}
    assert server.client.get_run(dangling).info.status == "KILLED"
    late = server.open_nested(parent, "adapt", 1)
    assert [metric.step for metric in server.client.get_metric_history(late, "loss")] == [4]
    versions = server.client.search_model_versions("name = 'flowers'")
    assert [version.version for version in versions] == [1] or [version.version for version in versions] == ["1"]
    assert server.client.get_model_version_by_alias("flowers", "kompress").tags["kompress.digest"].startswith("sha256:")

    import mlflow

    mlflow.set_tracking_uri(job.tracking["uri"])
    registered = Path(mlflow.artifacts.download_artifacts("models:/flowers@kompress", dst_path=str(tmp_path / "registered")))
    assert not list(registered.rglob("measurements")), "who serves it need not see the test samples"
    assert list(registered.rglob("export.json"))
    model = mlflow.pyfunc.load_model("models:/flowers@kompress")
    assert model.predict(numpy.ones((3, 1, 2, 2), dtype=numpy.float32))["scores"].shape == (3, 2)


def test_a_bundle_is_registered_without_what_its_model_said_of_the_test_samples(tmp_path):
    described = {"labels": ["a", "b"], "preprocessing": {}, "inputs": [{"name": "input", "shape": [-1, 4], "dtype": "float32"}]}
    folder = tmp_path / "bundle"
    (folder / "measurements").mkdir(parents=True)
    (folder / "measurements" / "test.parquet").write_bytes(BEFORE)
    (folder / "bundle.json").write_text(json.dumps(described))
    model_files.pack(folder, tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"bundle.json", "MLmodel"}


def test_a_job_that_missed_a_goal_is_closed_as_failed_and_not_registered(job, tmp_path):
    scratch = tmp_path / "scratch"
    told = run(job, scratch, failure="goal missed")
    publication = Publication(job.input(), scratch, threading.Event())
    publication.start()
    message = publication.finish(told)
    server = Mlflow(job.input().tracking, job.input().job, patience=0)
    assert server.client.get_run(message.parent_run_id).info.status == "FAILED"
    assert server.client.search_model_versions("name = 'flowers'") == []


def heard(wrong: list[int]) -> bytes:
    """Of 100 clips of two words each, those of which a model got the second word wrong."""
    counts = numpy.zeros(100, dtype=numpy.int64)
    counts[wrong] = 1
    said = [f"no {'go' if count else 'up'}" for count in counts]
    spoken = Spoken(["no up"] * 100, said, counts, counts * 0 + 2, 2 * counts, counts * 0 + 5)
    zeros = numpy.zeros(100, dtype=numpy.int64)
    return predictions.encode(
        Predictions(["<blank>"], numpy.arange(100), [], zeros, counts, numpy.full(100, 0.5), 0.1 + counts, spoken=spoken)
    )


def test_a_recogniser_s_report_speaks_of_words_where_others_speak_of_accuracy(tmp_path):
    job = Job(tmp_path)
    job.task = "speech-recognition"
    job.goals = [{"metric": "wer", "maxDegradation": 0.02}, {"metric": "wer", "atMost": 0.2}]
    rates = {"adapt": ([0, 1], 0.01), "slim": (list(range(1, 20)), 0.095), "ship": (list(range(1, 20)), 0.095)}
    for name, (wrong, rate) in rates.items():
        metrics = {"wer": rate, "cer": rate / 2, "loss": 0.2, "modelSizeBytes": 1e6}
        details = {"intervals": {"wer": [rate / 2, 2 * rate]}, "perClass": {}, "samples": 100}
        cut = {"layers": [], "search": PRUNED["search"]} if name == "slim" else {}
        job.commit(name, metrics, details | cut, {"bundle.json": b"{}", "measurements/test.parquet": heard(wrong)})
    run(job, tmp_path / "scratch")
    page, card = page_of(job), job.store.read("jobs/u-1/model-card.md").decode()
    assert "1 of 2 goals missed: wer loses &lt;= 0.02" in page
    assert "Word error rate changed by +8.50 points, 95 % interval" in page
    assert "holds in 100.0 % of test sets drawn anew" in page, "under a fifth, whatever the clips"
    assert "accuracy of words (1 - word error rate) on validation" in page
    for text in (page, card):
        assert "Accuracy changed" not in text
        assert "wer" in text
    assert "<td>1</td><td>18</td>" not in page
    assert "Right before, wrong now" in page
    assert "no go" in page
    assert "Of 100 samples 18 were right before and are wrong now, 1 the other way round" in card
    assert "Macro F1" not in card
    assert "No class is worse" not in card
    assert "| wer | 0.0950 (0.0475 to 0.1900) | 0.0100 |" in card
