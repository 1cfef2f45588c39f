"""A few spoken words through every stage: sound is no second-class citizen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from kompress_api.job import CompressionJobSpec
from kompress_api.places import Dataset
from kompress_jobs import data, reload
from kompress_jobs.context import StageOutput
from kompress_jobs.exporters import onnx
from kompress_jobs.loading import bundle
from kompress_jobs.preprocessing import parse, spectrogram
from kompress_jobs.rehearsal.rehearse import rehearse

RunStage = Callable[..., StageOutput]
DATASET = {"source": "builtin://words", "arguments": {"words": 3, "voices": 12}, "clipSeconds": 0.8}
SOUND: dict[str, Any] = {"task": "audio-classification", "dataset": DATASET}
TRAINING = {"batchSize": 24, "learningRate": 1e-2}
SLIM = {"pruningRatio": 0.5, "roundTo": 1, "scope": "Local", "recovery": {"epochs": 1, **TRAINING}}
SHIP = {"formats": [{"type": "ONNX"}], "targets": [{"threads": 1, "batchSizes": [1, 4]}], "benchmark": {"iterations": 10, "warmup": 1}}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def test_words_are_learned_taught_pruned_and_shipped(run_stage: RunStage, tmp_path: Path) -> None:
    adapt = run_stage({"fineTune": {"epochs": 15, **TRAINING}}, scratch="adapt", **SOUND)
    assert adapt.metrics["accuracy"] > 0.6, "of three words; guessing gives 0.33"
    assert adapt.folder is not None
    assert isinstance(bundle.describe(adapt.folder).preprocessing, spectrogram.Preprocessing)
    student = {"source": "python://tiny_models:convolutional", "arguments": {"width": 8}}
    distilled = {"teachers": [{"from": "adapt"}], "student": student, "epochs": 8, "augmentation": "Standard", **TRAINING}
    learn = run_stage({"distill": distilled}, inputs={"teacher0": adapt.folder}, scratch="learn", **SOUND)
    assert learn.folder is not None
    slim = run_stage({"prune": SLIM}, inputs={"model": learn.folder}, scratch="slim", **SOUND)
    assert slim.folder is not None
    assert slim.metrics["parameters"] < learn.metrics["parameters"] < adapt.metrics["parameters"]
    ship = run_stage({"export": SHIP}, inputs={"model": slim.folder, "baseline": adapt.folder}, scratch="ship", **SOUND)
    assert ship.folder is not None
    assert ship.details["parity"]["ONNX"]["cpu1"]["maxAbsolute"] < 1e-3
    for name in ("latencyP50Ms", "baseline.latencyP50Ms", "accuracy", "throughputPerSecond@ONNX/cpu1/4"):
        assert name in ship.metrics
    written = json.loads((ship.folder / reload.EXPORT).read_text())
    assert written["inputs"] == [{"name": "input", "shape": [-1, 1, 64, 80], "dtype": "float32"}]
    # What a caller elsewhere does: spectrograms by the file's own numbers, then the graph.
    words = data.load(Dataset.model_validate(DATASET), tmp_path)
    samples, _ = words.test.read(torch.arange(len(words.test)))
    (images,) = parse(written["preprocessing"])(samples)
    predicted = onnx.open_engine(ship.folder / "model.onnx", 1)([images.numpy()]).argmax(1)
    assert numpy.mean(predicted == words.test.labels.numpy()) == pytest.approx(ship.metrics["accuracy"])


@pytest.mark.parametrize("source", ["timm://test_resnet", "torchvision://mobilenet_v3_small"])
def test_a_library_s_image_model_hears(source: str, tmp_path: Path) -> None:
    content = {
        "model": {"source": source},
        "stages": [{"name": "adapt", "fineTune": {"epochs": 1}}, {"name": "ship", "export": {"formats": [{"type": "ONNX"}]}}],
    }
    found = data.load(Dataset.model_validate(DATASET), tmp_path, first=8)
    forecasts = rehearse(CompressionJobSpec.model_validate(SOUND | content), found, tmp_path)
    assert forecasts["ship"].parameters == forecasts["source"].parameters > 10_000
