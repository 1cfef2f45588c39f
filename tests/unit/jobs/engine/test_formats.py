"""Every format is the same model: on every kind of input, of every length, in every precision that it has."""

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import onnx
import onnxruntime
import pytest
import tiny_models
import torch
from torch import nn

from kompress_api.errors import MethodRefused, UnsafeFile
from kompress_api.stages.export import FormatType
from kompress_api.stages.quantize import Quantize
from kompress_jobs import registry, reload
from kompress_jobs.context import StageOutput
from kompress_jobs.evaluation.on_engine import arrays
from kompress_jobs.exporters import openvino, torch_export, torch_script
from kompress_jobs.modules import capture
from kompress_jobs.modules.half import halved
from kompress_jobs.preprocessing import Preprocessing, image, text, waveform
from kompress_jobs.quantizers import onnx_runtime, recipe_of
from kompress_jobs.samples import Inputs
from kompress_jobs.storage.artifacts import MEASUREMENTS

RunStage = Callable[..., StageOutput]
FORMATS = list(FormatType)
IMAGES = image.Preprocessing(image_size=8, channels=1, mean=[0.5], std=[0.5])
TEXTS = text.Preprocessing(max_length=16, pad_id=0, inputs=["input_ids", "attention_mask"])
SOUND = waveform.Preprocessing(sample_rate=800, length=800)


def texts(count: int) -> Inputs:
    """Shorter than the longest, the last token of every second one missing."""
    mask = torch.ones(count, 5, dtype=torch.int64)
    mask[::2, -1] = 0
    return torch.randint(1, 50, (count, 5)), mask


MODELS: dict[str, tuple[Callable[[int], nn.Module], Preprocessing, Callable[[int], Inputs]]] = {
    "convolutions": (tiny_models.convolutional, IMAGES, lambda count: (torch.randn(count, 1, 8, 8),)),
    "bert": (tiny_models.Bert, TEXTS, texts),
    "wav2vec2": (tiny_models.Wav2Vec2, SOUND, lambda count: (torch.randn(count, 800),)),
}


def lowered(
    form: FormatType, model: nn.Module, preprocessing: Preprocessing, folder: Path, batch: int | None = None, **options: Any
) -> Path:
    exporter = registry.load("exporters", form, field="f")
    path = folder / f"model{exporter.SUFFIX}"
    exporter.lower(model, preprocessing, path, batch=batch, metadata={"labels": ["a", "b"]}, **options)
    return path


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_a_file_answers_as_the_model_for_any_batch_and_length(name: str, form: FormatType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, preprocessing, inputs = MODELS[name]
    model = build(7).eval()
    exporter = registry.load("exporters", form, field="f")
    if form is FormatType.TORCH_SCRIPT:
        exporter.rehearse(model, preprocessing, batch=None, field="f")
    else:
        capture.require(model, preprocessing, None, form=form, field="f")
    engine = exporter.open_engine(lowered(form, model, preprocessing, tmp_path), 1)
    for count in (1, 3):
        question = inputs(count)
        with torch.no_grad():
            expected = model(*question).numpy()
        assert numpy.abs(engine(arrays(question)) - expected).max() < 1e-4


@pytest.mark.parametrize(("name", "form"), [*(("convolutions", form) for form in FORMATS), ("bert", FormatType.TORCH_EXPORT)])
def test_in_half_precision_a_file_is_half_as_large_and_called_as_before(name: str, form: FormatType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, preprocessing, inputs = MODELS[name]
    model, folders = build(7).eval(), [tmp_path / "whole", tmp_path / "half"]
    for folder, variant in zip(folders, (model, halved(model)), strict=True):
        folder.mkdir()
        lowered(form, variant, preprocessing, folder)
    question = inputs(3)
    exporter = registry.load("exporters", form, field="f")
    whole, half = (exporter.open_engine(folder / f"model{exporter.SUFFIX}", 1)(arrays(question)) for folder in folders)
    assert half.dtype == numpy.float32
    assert 0 < numpy.abs(whole - half).max() < 0.02 * numpy.abs(whole).max()
    assert next(model.parameters()).dtype == torch.float32, "the model itself stays as it is"
    saved = sum(bytes_of(folders[0]).values()) - sum(bytes_of(folders[1]).values())
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert saved > 1.5 * weights, "two bytes a weight, less what casts take"


def bytes_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_all_formats_in_one_export_with_the_figures_of_each(run_stage: RunStage) -> None:
    spec = {
        "formats": [{"type": form.value} for form in FORMATS],
        "targets": [{"batchSizes": [4, 1]}],
        "benchmark": {"iterations": 10, "warmup": 1},
    }
    output = run_stage({"export": spec}, inputs={"model": None, "baseline": None})
    assert output.folder is not None
    written = {entry["type"]: entry["file"] for entry in json.loads((output.folder / reload.EXPORT).read_text())["files"]}
    assert written == {"ONNX": "model.onnx", "TorchExport": "model1.pt2", "TorchScript": "model2.pt", "OpenVINO": "model3.xml"}
    sizes = bytes_of(output.folder)
    assert set(sizes) == {*written.values(), "model3.bin", reload.EXPORT, MEASUREMENTS}
    assert output.metrics["modelSizeBytes@OpenVINO/cpu1/4"] == sizes["model3.xml"] + sizes["model3.bin"]
    assert output.metrics["modelSizeBytes@TorchScript/cpu1/4"] == sizes["model2.pt"]
    for form in FORMATS:
        assert output.details["parity"][form.value]["cpu1"]["maxAbsolute"] < 1e-4
        for prefix in ("", "baseline."):
            for place in ("cpu1/4", "cpu1/1"):
                for name in ("latencyP50Ms", "latencyP99Ms", "throughputPerSecond", "peakMemoryBytes"):
                    first = form is FormatType.ONNX and place == "cpu1/4"
                    assert output.metrics[prefix + name if first else f"{prefix}{name}@{form.value}/{place}"] > 0
        if form is not FormatType.ONNX:
            assert output.metrics[f"accuracy@{form.value}/cpu1/4"] == output.metrics["accuracy"] == output.metrics["pytorch.accuracy"]
    places = [(entry["format"], entry["target"], entry["batchSize"]) for entry in output.details["speedups"]]
    assert places == [(form.value, "cpu1", size) for form in FORMATS for size in (4, 1)]


def test_the_memory_of_a_larger_batch_is_told_beside_that_of_a_smaller_one(run_stage: RunStage) -> None:
    targets = [{"batchSizes": [1, 4096]}, {"threads": 2}]
    spec = {"formats": [{"type": "ONNX"}], "targets": targets, "benchmark": {"iterations": 10, "warmup": 0}}
    found = run_stage({"export": spec}, inputs={"model": None, "baseline": None}).metrics
    assert found["peakMemoryBytes@ONNX/cpu1/4096"] > found["peakMemoryBytes"] + 4096 * 64 * 16 * 4, "the first layer's outputs at least"
    assert found["peakMemoryBytes@ONNX/cpu2/1"] < found["peakMemoryBytes@ONNX/cpu1/4096"], "each target has a process of its own"


def test_half_precision_is_told_against_the_baseline_as_it_was(run_stage: RunStage) -> None:
    spec = {"formats": [{"type": "ONNX", "precision": "FP16"}], "benchmark": {"iterations": 10}, "verify": {"minAgreement": 0.9}}
    output = run_stage({"export": spec}, inputs={"model": None, "baseline": None})
    assert output.folder is not None
    weights = [entry.data_type for entry in onnx.load(str(output.folder / "model.onnx")).graph.initializer if numpy.prod(entry.dims) > 100]
    assert set(weights) == {onnx.TensorProto.FLOAT16}
    assert output.metrics["modelSizeBytes"] < output.metrics["baseline.modelSizeBytes"] - output.metrics["parameters"]
    assert output.metrics["baseline.accuracy"] == output.metrics["pytorch.accuracy"]


@pytest.mark.parametrize("any_batch", [True, False])
@pytest.mark.parametrize("mode", ["Static", "QAT"])
def test_a_quantized_model_keeps_its_bytes_in_openvino(mode: str, any_batch: bool, run_stage: RunStage) -> None:
    """As a user of ONNX Runtime has it, each by its engine's own quantizer."""
    training = {"training": {"epochs": 1, "batchSize": 32, "learningRate": 1e-3}} if mode == "QAT" else {}
    made = run_stage({"quantize": {"mode": mode, "calibration": {"numSamples": 64}, **training}})
    assert made.folder is not None
    formats = [{"type": "ONNX"}, {"type": "OpenVINO", "dynamicBatch": any_batch}]
    spec = {
        "formats": formats,
        "targets": [{"batchSizes": [24]}],
        "benchmark": {"iterations": 10},
        "verify": {"minAgreement": 0.8},
    }
    output = run_stage({"export": spec}, inputs={"model": made.folder, "baseline": None}, scratch="export")
    assert output.folder is not None
    assert (output.folder / "model1.xml").read_text().count('type="FakeQuantize"') > 0
    weights = (output.folder / "model1.bin").stat().st_size
    assert weights < 2 * output.metrics["parameters"], "a byte each, and the scales"
    assert abs(output.metrics["accuracy@OpenVINO/cpu1/24"] - output.metrics["accuracy"]) < 0.03
    found = openvino.library().Core().read_model(str(output.folder / "model1.xml")).inputs[0].partial_shape
    assert found[0].is_dynamic is any_batch


@pytest.mark.parametrize(("samples", "said"), [(None, "an older version made it"), (8, "at least 16")])
def test_a_recipe_that_openvino_can_t_be_calibrated_by_is_refused(samples: int | None, said: str, run_stage: RunStage) -> None:
    made = run_stage({"quantize": {"calibration": {"numSamples": 64}}})
    assert made.folder is not None
    file = made.folder / "bundle.json"
    described = json.loads(file.read_text())
    described["quantization"] = {name: value for name, value in described["quantization"].items() if name != "samples"}
    described["quantization"] |= {} if samples is None else {"samples": samples}
    file.write_text(json.dumps(described))
    with pytest.raises(MethodRefused, match=said) as caught:
        run_stage({"export": {"formats": [{"type": "OpenVINO"}]}}, inputs={"model": made.folder, "baseline": None}, scratch="export")
    assert caught.value.field.endswith("formats[0].precision")


@pytest.mark.parametrize("form", [FormatType.ONNX, FormatType.OPENVINO])
@pytest.mark.parametrize("method", ["MinMax", "Percentile"])
def test_static_ranges_leave_attention_its_masks(form: FormatType, method: str, tmp_path: Path) -> None:
    """As numbers they are -3.4e38: they would take all of a byte, and the scores beside them nothing."""
    torch.manual_seed(0)
    model = tiny_models.Bert(7).eval()
    for name, weight in model.named_parameters():
        weight.data *= 10 if "attention" in name and weight.ndim == 2 else 1  # as in a trained one, it matters what is attended to
    wanted = {"mode": "Static", "calibration": {"method": method}}
    recipe, batches = recipe_of(Quantize.model_validate(wanted), "onnx_runtime"), [arrays(texts(16)) for _ in range(4)]
    if form is FormatType.ONNX:
        options = {"recipe": onnx_runtime.calibrate(lowered(form, model, TEXTS, tmp_path), recipe, batches)}
    else:
        options = {"recipe": recipe, "batches": batches}
    engine = registry.load("exporters", form, field="f").open_engine(lowered(form, model, TEXTS, tmp_path, **options), 1)
    question = texts(8)
    with torch.no_grad():
        expected = model(*question).numpy()
    assert 0 < numpy.abs(engine(arrays(question)) - expected).max() < 0.2 * numpy.abs(expected).max()
    if form is FormatType.ONNX:
        nodes = onnx.load(str(tmp_path / "model.onnx")).graph.node
        read = {name for node in nodes if node.op_type in ("Softmax", "LayerNormalization") for name in node.input[:1]}
        assert not [node.name for node in nodes if node.op_type == "DequantizeLinear" and node.output[0] in read], "residual sums"
        kernels = optimized(tmp_path / "model.onnx")
        assert "MatMulIntegerToFloat" in kernels
        assert "SkipLayerNormalization" not in kernels, "one that takes seven times as long as the two that it stands for"


def optimized(graph: Path) -> set[str]:
    """The kernels that ONNX Runtime has made of a graph."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(graph.with_suffix(".optimized.onnx"))
    options.log_severity_level = 3  # it warns that the file is for this processor
    onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}


def test_openvino_leaves_alone_what_the_recipe_says(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
    counts = []
    for ignore in ([], ["3"], ["1"], ["1", "3"]):
        recipe = recipe_of(Quantize.model_validate({"mode": "Static", "ignore": ignore}), "onnx_runtime")
        path = lowered(FormatType.OPENVINO, model, IMAGES, tmp_path, recipe=recipe, batches=[arrays((torch.randn(32, 1, 8, 8),))])
        counts.append(path.read_text().count('type="FakeQuantize"'))
    assert counts == [2, 1, 1, 0], "what each layer reads"


@pytest.mark.parametrize("scheme", ["W8A16", "W4A16"])
def test_weights_alone_keep_their_bits_in_openvino(scheme: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
    recipe = recipe_of(Quantize.model_validate({"mode": "WeightOnly", "scheme": scheme}), "onnx_runtime")
    images = torch.randn(32, 1, 8, 8)
    answers = []
    for form in (FormatType.ONNX, FormatType.OPENVINO):
        path = lowered(form, model, IMAGES, tmp_path, recipe=recipe)
        answers.append(registry.load("exporters", form, field="f").open_engine(path, 1)(arrays((images,))))
    assert numpy.abs(answers[0] - answers[1]).max() < 0.01 * numpy.abs(answers[0]).max()
    bits = {"W8A16": 8, "W4A16": 4}[scheme]
    assert (tmp_path / "model.bin").stat().st_size < 1.5 * 74 * 64 * bits / 8, "and scales, and biases"


@pytest.mark.parametrize("form", [form for form in FORMATS if form is not FormatType.TORCH_SCRIPT])
def test_a_fixed_batch_axis_is_in_the_file(form: FormatType, tmp_path: Path) -> None:
    path = lowered(form, tiny_models.convolutional(7).eval(), IMAGES, tmp_path, batch=4)
    engine = registry.load("exporters", form, field="f").open_engine(path, 1)
    assert engine([numpy.zeros((4, 1, 8, 8), "float32")]).shape == (4, 7)
    with pytest.raises(Exception, match="4"):
        engine([numpy.zeros((3, 1, 8, 8), "float32")])


def test_a_fixed_batch_axis_is_proven_on_whole_batches(run_stage: RunStage) -> None:
    """However few samples are to be compared."""
    spec = {
        "formats": [{"type": "ONNX", "dynamicBatch": False}],
        "targets": [{"batchSizes": [8]}],
        "benchmark": {"iterations": 10},
        "verify": {"numSamples": 3},
    }
    output = run_stage({"export": spec}, inputs={"model": None, "baseline": None})
    assert output.details["parity"]["ONNX"]["cpu1"]["samples"] == 8
    assert output.metrics["accuracy"] == output.metrics["pytorch.accuracy"]


@pytest.mark.parametrize("form", FORMATS)
def test_labels_and_preprocessing_go_with_the_file(form: FormatType, tmp_path: Path) -> None:
    """Whoever gets the file alone still knows what its scores mean."""
    path = lowered(form, tiny_models.convolutional(7).eval(), IMAGES, tmp_path)
    assert json.loads(metadata(form, path)) == {"labels": ["a", "b"]}


def metadata(form: FormatType, path: Path) -> str:
    """As a user of the format reads it."""
    if form is FormatType.ONNX:
        return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}["kompress"]
    if form is FormatType.OPENVINO:
        return openvino.library().Core().read_model(str(path)).get_rt_info(["kompress"]).value
    extra = {"kompress": ""}
    if form is FormatType.TORCH_EXPORT:
        torch.export.load(path, extra_files=extra)
    else:
        torch.jit.load(str(path), _extra_files=extra)
    return extra["kompress"] if isinstance(extra["kompress"], str) else extra["kompress"].decode()


@pytest.mark.parametrize("opset", [18, 23])
def test_the_opset_that_was_asked_for_is_the_file_s(opset: int, run_stage: RunStage) -> None:
    spec = {"formats": [{"type": "ONNX", "opset": opset}], "benchmark": {"iterations": 10}}
    output = run_stage({"export": spec}, inputs={"model": None, "baseline": None})
    assert output.folder is not None
    assert {entry.domain: entry.version for entry in onnx.load(str(output.folder / "model.onnx")).opset_import}[""] == opset


class Counting(nn.Module):
    """Takes the size of its first batch for that of all."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.reshape(len(images.tolist()), -1)[:, :10]


def test_a_trace_that_holds_for_one_batch_size_only_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(MethodRefused, match="another shape") as caught:
        torch_script.rehearse(Counting().eval(), IMAGES, batch=None, field="formats[0].type")
    assert caught.value.field == "formats[0].type"
    assert "TorchExport" in caught.value.hint
    torch_script.rehearse(Counting().eval(), IMAGES, batch=4, field="formats[0].type")


def test_who_wants_a_deprecated_format_is_told(run_stage: RunStage, tmp_path: Path) -> None:
    run_stage({"export": {"formats": [{"type": "TorchScript"}], "benchmark": {"iterations": 10}}}, inputs={"model": None, "baseline": None})
    told = "".join(path.read_text() for path in (tmp_path / "scratch").glob("*.jsonl"))
    assert "deprecated TorchScript" in told


def archive_with(path: Path, changes: dict[str, bytes]) -> Path:
    """A copy of an archive with entries added or replaced, by their names below its first folder."""
    target = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as copy:
        root = source.namelist()[0].partition("/")[0]
        for entry in source.namelist():
            if entry.partition("/")[2] not in changes:
                copy.writestr(entry, source.read(entry))
        for name, content in changes.items():
            copy.writestr(f"{root}/{name}", content)
    return target


def test_an_archive_that_would_execute_something_is_not_opened(tmp_path: Path) -> None:
    """As one that somebody else put into the bucket."""
    path = lowered(FormatType.TORCH_EXPORT, tiny_models.convolutional(7).eval(), IMAGES, tmp_path)
    torch_export.open_engine(path, 1)
    torch_export.open_engine(archive_with(path, {}), 1)
    pickled = io.BytesIO()
    torch.save(((torch.zeros(2, 1, 8, 8),), {}), pickled)
    tables = {"data/weights/model_weights_config.json": "weight_0", "data/constants/model_constants_config.json": "custom_obj_0"}
    row = {"is_param": True, "tensor_meta": None}
    for changes in (
        {"data/sample_inputs/model.pt": pickled.getvalue()},
        {"data/weights/model.pt": pickled.getvalue()},
        {"data/aotinductor/model/model.wrapper.so": b"code"},
        {next(iter(tables)): json.dumps({"config": {"a": row | {"path_name": "weight_0", "use_pickle": True}}}).encode()},
        {list(tables)[1]: json.dumps({"config": {"a": row | {"path_name": "custom_obj_0", "use_pickle": False}}}).encode()},
        {list(tables)[1]: json.dumps({"config": {"a": row | {"path_name": "opaque_obj_0", "use_pickle": False}}}).encode()},
    ):
        with pytest.raises(UnsafeFile):
            torch_export.open_engine(archive_with(path, changes), 1)


OPEN = """
import sys
from pathlib import Path
from kompress_jobs.exporters import openvino
openvino.open_engine(Path(sys.argv[1]), 1)
assert sys.modules["openvino_telemetry"] is None
assert "torch" not in sys.modules and "onnx" not in sys.modules

import numpy
from kompress_jobs.quantizers import nncf
graph, recipe = Path(sys.argv[2]), {"mode": "Static", "calibration": "MinMax", "samples": 4, "perChannel": True, "ignore": []}
model = openvino.library().Core().read_model(str(graph))
nncf.quantized(graph, model, recipe, [[numpy.random.rand(4, 1, 8, 8).astype("float32")]])
"""


def test_openvino_tells_nobody_that_it_is_used(tmp_path: Path) -> None:
    """Its package sends a message to its makers when it is imported, and keeps a number for them in the home directory; so does nncf."""
    files = [lowered(form, tiny_models.convolutional(7).eval(), IMAGES, tmp_path) for form in (FormatType.OPENVINO, FormatType.ONNX)]
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", OPEN, *map(str, files)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
