"""evaluation.datasets: measured once for each model and each state of the data, without training anything again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from stage_contexts import build_context

from kompress_api.errors import LabelMismatch, MethodRefused
from kompress_api.job import CompressionJobSpec
from kompress_jobs import registry
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.evaluation import measurements
from kompress_jobs.measure.predictions import Predictions
from kompress_jobs.planning.fingerprint import fingerprint
from kompress_jobs.planning.plan import Plan
from kompress_jobs.pod import execute
from kompress_jobs.rehearsal.rehearse import rehearse
from kompress_jobs.samples.splits import Data
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.store import Store, open_store

MakeContext = Callable[..., StageContext]
TUNE = {"fineTune": {"epochs": 6, "batchSize": 32, "learningRate": 1e-2}}
SAME = {"source": "builtin://digits"}
KEY = "0" * 64


@pytest.fixture(scope="module")
def photos(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Threes and sevens of the test split as files, in a set that knows no other digit."""
    root = tmp_path_factory.mktemp("photos")
    images, _ = digits.test.read(torch.arange(len(digits.test)))
    for index, label in enumerate(digits.test.labels.tolist()):
        if label in (3, 7):
            (root / "all" / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[index, 0].numpy()).save(root / "all" / str(label) / f"{index}.png")
    return {"source": f"file://{root}", "format": "imagefolder", "splits": {"train": "all", "test": "all"}}


def run(context: StageContext) -> artifacts.Commit:
    """As in a pod, from the look for a commit to the last measurement."""
    store = store_of(context)
    told = execute.execute(context, store, KEY, registry.load("stages", context.input.kind, field="kind").run)
    assert told.artifact
    found = artifacts.find(store, KEY)
    assert found is not None
    return found


def store_of(context: StageContext) -> Store:
    return open_store(context.input.output, "output")


def measured(commit: artifacts.Commit, context: StageContext, index: int, model: str = "test") -> Predictions:
    dataset = context.input.evaluation.datasets[index]
    found = measurements.read(commit, dataset, fingerprint(dataset).digest, model)
    assert found is not None
    return found


def test_a_tuned_model_and_its_source_are_measured_on_data_with_fewer_labels(tmp_path: Path, photos: dict[str, Any]) -> None:
    """Classes are matched by name: the set's second label is the model's eighth."""
    context = build_context(tmp_path, TUNE, evaluation={"datasets": [photos]})
    commit = run(context)
    own, source = (measured(commit, context, 0, model) for model in ("test", "source"))
    assert set(own.targets.tolist()) == {3, 7}
    assert own.names[0].startswith("all/3/")
    assert own.right.mean() == own.about["metrics"]["accuracy"] > 0.8 > source.right.mean()
    low, high = own.about["intervals"]["accuracy"]
    assert low < own.right.mean() < high
    assert commit.metrics["accuracy"] != own.right.mean(), "the test split's figures stay the stage's"


def test_what_is_missing_is_measured_and_nothing_trained_again(tmp_path: Path, photos: dict[str, Any]) -> None:
    first = build_context(tmp_path, TUNE, evaluation={"datasets": [photos]}, baseline="elsewhere")
    commit = run(first)
    listed = {entry.key: entry.mtime_ns for entry in commit.store.list("artifacts/")}

    def refuse(context: StageContext) -> StageOutput:
        raise AssertionError("trained again")

    again = build_context(tmp_path, TUNE, evaluation={"datasets": [photos, SAME]}, scratch="again", attempt=2, baseline="elsewhere")
    digests = [fingerprint(dataset).digest for dataset in again.input.evaluation.datasets]
    data = {"digest": "sha256:d", "imageSize": 8, "channels": 1}
    planned = Plan.model_validate({"job": again.input.job.dump(), "data": data, "datasets": digests, "sourceKey": "k"})
    assert execute.execute(again, commit.store, KEY, refuse, planned).reused
    now = {entry.key: entry.mtime_ns for entry in commit.store.list("artifacts/")}
    assert {key: now[key] for key in listed} == listed, "what was there is as it was"
    assert len(now) == len(listed) + 1
    assert measured(commit, again, 1).right.mean() == pytest.approx(commit.metrics["accuracy"])


@pytest.mark.parametrize(
    "stage",
    [
        {"quantize": {"calibration": {"numSamples": 64}}},
        {"export": {"formats": [{"type": "ONNX"}], "targets": [{"batchSizes": [1]}], "benchmark": {"iterations": 10, "warmup": 1}}},
    ],
    ids=["quantize", "export"],
)
def test_a_lowered_model_answers_as_its_stage_measured_it(stage: dict[str, Any], tmp_path: Path) -> None:
    """On the stage's own test split both ways must agree, else the other sets' figures are those of another model."""
    inputs = {"model": None, "baseline": None} if "export" in stage else {"model": None}
    context = build_context(tmp_path, stage, inputs=inputs, evaluation={"datasets": [SAME]}, baseline="elsewhere")
    commit = run(context)
    found = measured(commit, context, 0)
    assert {name: found.about["metrics"][name] for name in ("accuracy", "loss")} == pytest.approx(
        {name: commit.metrics[name] for name in ("accuracy", "loss")}
    )


def test_the_preflight_reads_every_set_and_refuses_by_its_place(digits: Data, tmp_path: Path, photos: dict[str, Any]) -> None:
    def preflight(*datasets: dict[str, Any]) -> None:
        content = {
            "task": "image-classification",
            "model": {"source": "python://tiny_models:convolutional"},
            "dataset": SAME,
            "stages": [{"name": "adapt", "fineTune": {"epochs": 1}}],
            "evaluation": {"datasets": list(datasets)},
        }
        rehearse(CompressionJobSpec.model_validate(content), digits, tmp_path)

    preflight(SAME, photos)
    (tmp_path / "strange" / "all" / "cat").mkdir(parents=True)
    (tmp_path / "strange" / "all" / "7").mkdir()
    for label in ("cat", "7"):
        for index in range(3):
            Image.new("L", (8, 8)).save(tmp_path / "strange" / "all" / label / f"{index}.png")
    with pytest.raises(LabelMismatch, match="'cat' is none of the 10") as strange:
        preflight(photos, photos | {"source": f"file://{tmp_path}/strange"})
    assert strange.value.field == "spec.evaluation.datasets[1]"
    with pytest.raises(MethodRefused, match=r"several labels a sample, spec\.dataset one label") as several:
        preflight(texts_of(tmp_path) | {"multiLabel": True})
    assert several.value.field == "spec.evaluation.datasets[0].multiLabel"
    with pytest.raises(MethodRefused, match="can't answer") as texts:
        preflight(texts_of(tmp_path))
    assert texts.value.field == "spec.evaluation.datasets[0]"


def texts_of(folder: Path) -> dict[str, Any]:
    """Samples of another kind with the right labels."""
    rows = [f"text {number},{number % 10}" for number in range(100)]
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]))
    return {"source": f"file://{folder}/texts.csv", "format": "csv", "inputColumn": "text", "labelColumn": "label"}
