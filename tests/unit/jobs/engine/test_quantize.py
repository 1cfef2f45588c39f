"""The stage quantize: fewer bits in the engine's own way, told honestly, and the same again from the bundle's recipe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
import torch
from stage_contexts import build_context
from torch import nn

from kompress_api.errors import MethodRefused, ParityFailed
from kompress_api.stages.quantize import Quantize
from kompress_jobs.context import StageOutput
from kompress_jobs.description import DESCRIPTION
from kompress_jobs.exporters import onnx as exporter
from kompress_jobs.loading import bundle
from kompress_jobs.modules import qat
from kompress_jobs.preprocessing.image import Preprocessing
from kompress_jobs.quantizers import onnx_runtime, recipe_of
from kompress_jobs.stages import fine_tune

RunStage = Callable[..., StageOutput]
TRAINING = {"epochs": 6, "batchSize": 32, "learningRate": 1e-2}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that knows the digits well enough to lose something."""
    output = fine_tune.run(build_context(tmp_path_factory.mktemp("tuned"), {"fineTune": TRAINING}))
    assert output.folder is not None
    return output.folder


def operators(path: Path) -> dict[str, int]:
    nodes = [node.op_type for node in onnx.load(str(path)).graph.node]
    return {name: nodes.count(name) for name in set(nodes)}


def lowered(model: nn.Module, folder: Path) -> Path:
    path = folder / "float.onnx"
    images = Preprocessing(image_size=8, channels=1, mean=[0.5], std=[0.5])
    exporter.lower(model.eval(), images, path, batch=None, metadata={"labels": []})
    return path


class Linear(nn.Sequential):
    """Two named linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("flatten", nn.Flatten())
        self.add_module("first", nn.Linear(64, 64))
        self.add_module("act", nn.ReLU())
        self.add_module("second", nn.Linear(64, 10))


def test_a_static_recipe_loses_little_and_export_lowers_by_it(tuned: Path, run_stage: RunStage) -> None:
    """A quantize stage and the export after it show the figures of one and the same graph."""
    output = run_stage({"quantize": {"calibration": {"numSamples": 64}}}, inputs={"model": tuned})
    assert output.folder is not None
    described = bundle.describe(output.folder)
    assert output.metrics["accuracy"] > bundle.describe(tuned).metrics["accuracy"] - 0.03
    assert output.metrics["modelSizeBytes"] < output.details["floatSizeBytes"]
    assert described.quantization is not None
    assert described.quantization["ranges"]
    spec = {"formats": [{"type": "ONNX"}], "benchmark": {"iterations": 10}, "verify": {"minAgreement": 0.9}}
    inputs = {"model": output.folder, "baseline": tuned}
    shipped = run_stage({"export": spec}, inputs=inputs, scratch="export")
    assert shipped.folder is not None
    assert operators(shipped.folder / "model.onnx")["QuantizeLinear"] > 0
    assert shipped.metrics["accuracy"] == output.metrics["accuracy"]
    assert shipped.metrics["modelSizeBytes"] < shipped.metrics["baseline.modelSizeBytes"]
    plain = run_stage({"export": spec | {"formats": [{"type": "ONNX", "precision": "FP32"}]}}, inputs=inputs, scratch="plain")
    assert plain.folder is not None
    assert "QuantizeLinear" not in operators(plain.folder / "model.onnx")


def test_predictions_that_change_fail_the_export_of_a_quantized_model(tuned: Path, run_stage: RunStage) -> None:
    output = run_stage({"quantize": {"calibration": {"numSamples": 16}}}, inputs={"model": tuned})
    assert output.folder is not None
    path = output.folder / DESCRIPTION
    written = json.loads(path.read_text())
    written["quantization"]["ranges"] = narrowed(written["quantization"]["ranges"])
    path.write_text(json.dumps(written))
    spec = {"formats": [{"type": "ONNX"}], "benchmark": {"iterations": 10}}
    with pytest.raises(ParityFailed, match="agrees"):
        run_stage({"export": spec}, inputs={"model": output.folder, "baseline": tuned}, scratch="export")


def narrowed(value: Any) -> Any:
    """Ranges in which everything saturates."""
    if isinstance(value, dict):
        return {name: narrowed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [narrowed(inner) for inner in value]
    return value * 1e-3 if isinstance(value, float) else value


def test_training_with_rounding_ends_with_plain_weights_and_a_quantized_model_that_knows(tuned: Path, run_stage: RunStage) -> None:
    training = {"epochs": 1, "batchSize": 32, "learningRate": 1e-3}
    spec = {"mode": "QAT", "training": training, "calibration": {"numSamples": 64}, "ignore": ["classifier"]}
    output = run_stage({"quantize": spec}, inputs={"model": tuned})
    assert output.folder is not None
    found = bundle.read(output.folder)
    assert set(found.model.state_dict()) == set(bundle.read(tuned).model.state_dict())
    assert output.metrics["accuracy"] > bundle.describe(tuned).metrics["accuracy"] - 0.03


@pytest.mark.parametrize(
    ("mode", "scheme", "operator"),
    [("Dynamic", "W8A8", "MatMulInteger"), ("WeightOnly", "W4A16", "MatMulNBits"), ("WeightOnly", "W8A16", "MatMulNBits")],
)
def test_linear_layers_get_the_engine_s_own_kernels_and_answer_nearly_alike(mode: str, scheme: str, operator: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = lowered(Linear(), tmp_path), tmp_path / "quantized.onnx"
    recipe = recipe_of(Quantize.model_validate({"mode": mode, "scheme": scheme}), "onnx_runtime")
    onnx_runtime.apply(source, target, onnx_runtime.calibrate(source, recipe, []))
    assert operators(target)[operator] == 2
    images = [numpy.random.default_rng(0).normal(size=(32, 1, 8, 8)).astype("float32")]
    before, after = (exporter.open_engine(path, 1)(images) for path in (source, target))
    assert numpy.abs(before - after).max() < 0.2 * numpy.abs(before).max()
    assert [entry.key for entry in onnx.load(str(target)).metadata_props] == [exporter.METADATA]


@pytest.mark.parametrize(("mode", "scheme"), [("Dynamic", "W8A8"), ("Static", "W8A8"), ("WeightOnly", "W8A16")])
def test_modules_that_are_to_be_left_alone_are(mode: str, scheme: str, tmp_path: Path) -> None:
    source, target = lowered(Linear(), tmp_path), tmp_path / "quantized.onnx"
    recipe = recipe_of(Quantize.model_validate({"mode": mode, "scheme": scheme, "ignore": ["second"]}), "onnx_runtime")
    images = [numpy.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype("float32")]
    onnx_runtime.apply(source, target, onnx_runtime.calibrate(source, recipe, [images]))
    floats = [entry for entry in onnx.load(str(target)).graph.initializer if entry.data_type == onnx.TensorProto.FLOAT]
    assert [numpy.prod(entry.dims) for entry in floats if numpy.prod(entry.dims) >= 640] == [640], "the weight of `second`, 10 by 64"


def test_sensitivity_names_every_layer_with_what_it_brings_to_leave_it_alone(tuned: Path, run_stage: RunStage) -> None:
    output = run_stage({"quantize": {"sensitivity": True, "calibration": {"numSamples": 16}}}, inputs={"model": tuned})
    assert {entry["layer"] for entry in output.details["sensitivity"]} == {"first", "second", "classifier"}
    gains = [entry["lossSaved"] for entry in output.details["sensitivity"]]
    assert gains == sorted(gains, reverse=True)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"mode": "Static", "scheme": "W4A16"}, "scheme"),
        ({"mode": "WeightOnly", "scheme": "W8A8"}, "scheme"),
        ({"scheme": "FP8"}, "scheme"),
        ({"target": {"device": "GPU"}}, "target.device"),
        ({"calibration": {"numSamples": 3}}, "calibration.numSamples"),
    ],
)
def test_what_the_target_has_no_kernel_for_is_refused_by_field(spec: dict[str, Any], field: str, tuned: Path, run_stage: RunStage) -> None:
    with pytest.raises(MethodRefused) as caught:
        run_stage({"quantize": spec}, inputs={"model": tuned})
    assert caught.value.field.endswith(f"quantize.{field}")


def test_a_convolutional_model_has_nothing_for_weight_only(tmp_path: Path) -> None:
    source = lowered(nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), tmp_path)
    recipe = recipe_of(Quantize.model_validate({"mode": "WeightOnly", "scheme": "W8A16"}), "onnx_runtime")
    with pytest.raises(MethodRefused, match="linear"):
        onnx_runtime.apply(source, tmp_path / "quantized.onnx", recipe)


def test_rounding_is_on_the_grid_and_lets_gradients_through() -> None:
    """By hand: with the largest weight 127 the grid is the whole numbers."""
    rounded = qat.RoundedWeight(per_channel=True)
    weight = torch.tensor([[127.0, 0.4, -3.6]], requires_grad=True)
    found = rounded(weight)
    assert found.tolist() == [[127.0, 0.0, -4.0]]
    found.sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 1.0, 1.0]]
    inputs = qat.RoundedInput()
    assert inputs(torch.tensor([-1.0, 254.0])).tolist() == [-1.0, 254.0], "255 steps of one"
    inputs.eval()
    assert inputs(torch.tensor([300.0, 0.4])).tolist() == [254.0, 0.0], "beyond the range it saturates"


class Looked(nn.Module):
    """Rows of a table, as words are."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(300, 64)
        self.first = nn.Linear(64, 64)
        self.second = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = (images.flatten(1) * 150 + 150).long().clamp(0, 299)
        return self.second(torch.relu(self.first(self.table(rows).mean(1))))


@pytest.mark.parametrize(("mode", "scheme"), [("Dynamic", "W8A8"), ("WeightOnly", "W8A16")])
def test_an_embedding_is_kept_as_bytes_with_a_scale_a_row(mode: str, scheme: str, tmp_path: Path) -> None:
    """Of a small language model it is most of the file: half of a model's size would be left where it was."""
    torch.manual_seed(0)
    model = Looked()
    with torch.no_grad():
        model.table.weight[7] *= 1000  # one loud row must not silence the others
    source = lowered(model, tmp_path)
    images = [numpy.random.default_rng(0).uniform(0, 1, size=(32, 1, 8, 8)).astype("float32")]
    answers, tables = {}, {}
    for ignore in ([], ["table"]):
        target = tmp_path / f"quantized{len(ignore)}.onnx"
        recipe = recipe_of(Quantize.model_validate({"mode": mode, "scheme": scheme, "ignore": ignore}), "onnx_runtime")
        onnx_runtime.apply(source, target, recipe)
        answers[bool(ignore)] = exporter.open_engine(target, 1)(images)
        tables[bool(ignore)] = [entry.data_type for entry in onnx.load(str(target)).graph.initializer if list(entry.dims) == [300, 64]]
    assert tables == {False: [onnx.TensorProto.INT8], True: [onnx.TensorProto.FLOAT]}
    assert numpy.abs(answers[True] - answers[False]).max() < 0.05 * numpy.abs(answers[True]).max()
