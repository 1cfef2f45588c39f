"""Export: the same model in another format, or a failed stage."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
import torch

from kompress_api.errors import MethodRefused, ParityFailed
from kompress_api.stages.export import Export, Verify
from kompress_jobs import reload
from kompress_jobs.bench import Bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import Loaded
from kompress_jobs.exporters import onnx, torch_export
from kompress_jobs.measure import latency, parity, size
from kompress_jobs.modules import capture
from kompress_jobs.preprocessing import image
from kompress_jobs.stages import export

MakeContext = Callable[..., StageContext]
RunStage = Callable[..., StageOutput]
SPEC: dict[str, Any] = {
    "formats": [{"type": "ONNX"}],
    "targets": [{"threads": 1, "batchSizes": [4, 1]}],
    "benchmark": {"iterations": 10, "warmup": 1},
}


def test_the_stage_ships_a_verified_file_with_its_figures_beside_the_baseline_s(run_stage: RunStage) -> None:
    output = run_stage({"export": SPEC}, inputs={"model": None, "baseline": None})
    assert output.folder is not None
    metrics = output.metrics
    for prefix in ("", "baseline."):
        for name in ("accuracy", "recall", "f1", "loss", "top5", "parameters", "macs", "peakMemoryBytes", "throughputPerSecond"):
            assert prefix + name in metrics
        assert metrics[f"{prefix}latencyP50Ms"] <= metrics[f"{prefix}latencyP99Ms"]
        assert f"{prefix}latencyP50Ms@ONNX/cpu1/1" in metrics, "4 is the first"
    assert metrics["modelSizeBytes"] == (output.folder / "model.onnx").stat().st_size
    assert metrics["accuracy"] == metrics["pytorch.accuracy"] == metrics["source.accuracy"]
    assert metrics["peakMemoryBytes"] < metrics["pytorch.modelSizeBytes"] + 400e6, "torch must not be counted in"
    assert output.details["parity"]["ONNX"]["cpu1"]["maxAbsolute"] < 1e-4
    speedup = output.details["speedups"][0]
    assert speedup["low"] <= speedup["value"] <= speedup["high"]
    written = json.loads((output.folder / reload.EXPORT).read_text())
    assert written["labels"] == [str(index) for index in range(10)]
    assert sorted(path.name for path in output.folder.iterdir()) == [reload.EXPORT, "measurements", "model.onnx"]


def test_quality_is_told_for_each_kind_of_processor(make_context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the move costs is the difference; another engine on the CPU stands for a GPU, which sees half of each image."""
    bench = Bench(make_context({"export": SPEC}))
    found = bench.take("model")
    found.model.cpu().eval()
    spec = Export.model_validate({"formats": [{"type": "TorchExport"}], "targets": [{}, {"device": "GPU", "batchSizes": [8, 1]}]})
    path = tmp_path / "m.pt2"
    torch_export.lower(found.model, found.description.preprocessing, path, batch=None, metadata={})
    half = torch_export.open_engine(path, 1)
    monkeypatch.setattr(torch_export, "open_on_gpu", lambda _: lambda inputs: half([inputs[0] * 0.5]))
    places = [("TorchExport", "cpu1", 1), ("TorchExport", "gpu", 8), ("TorchExport", "gpu", 1)]
    lowered = export.Lowered(path, at={place: {"latencyP50Ms": 1.0} for place in places})
    own = export.judge(bench, torch_export, lowered, found, spec, spec.formats[0])
    told = export.figures([{"model": lowered, "baseline": lowered}])
    assert told["loss"] == own.values["loss"]
    assert told["loss@TorchExport/gpu/8"] != told["loss"]
    assert "loss@TorchExport/gpu/1" not in told


def test_attention_counts_whatever_kernel_computes_it() -> None:
    """By hand, of 6 tokens 16 wide: four projections, and the products of queries with keys and of weights with values."""

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
            return found

    tokens, expected = torch.zeros(1, 6, 16), 4 * 6 * 16 * 16 + 2 * 6 * 6 * 16
    assert size.macs(Attention(), (tokens,)) == expected
    assert size.macs(Attention().to("meta"), (tokens.to("meta"),)) == expected


def test_an_exporter_that_changes_the_model_fails_the_stage(run_stage: RunStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an operator that the runtime computes differently would."""

    def tampered(bench: Bench, exporter: ModuleType, found: Loaded, path: Path, form: Any, spec: Any) -> None:
        with torch.no_grad():
            found.model.classifier.weight[3] += 0.5  # type: ignore[union-attr, operator, index]
        lower(bench, exporter, found, path, form, spec)
        with torch.no_grad():
            found.model.classifier.weight[3] -= 0.5  # type: ignore[union-attr, operator, index]

    lower = export.lower
    monkeypatch.setattr(export, "lower", tampered)
    with pytest.raises(ParityFailed) as caught:
        run_stage({"export": SPEC}, inputs={"model": None, "baseline": None})
    assert caught.value.exit_code == 78
    assert "verify" in caught.value.field


def test_a_fixed_batch_axis(make_context: MakeContext, tmp_path: Path) -> None:
    bench = Bench(make_context({"export": SPEC}))
    found = bench.take("model")
    onnx.lower(found.model.cpu().eval(), found.description.preprocessing, tmp_path / "m.onnx", batch=4, metadata={})
    run = onnx.open_engine(tmp_path / "m.onnx", 1)
    assert run([numpy.zeros((4, 1, 8, 8), "float32")]).shape == (4, 10)
    with pytest.raises(Exception, match="Got: 3 Expected: 4"):
        run([numpy.zeros((3, 1, 8, 8), "float32")])
    scored = export.score(bench, run, found, 4)
    assert scored.details["samples"] == len(bench.data.test)


def test_a_graph_that_can_not_be_captured_is_refused_by_field() -> None:
    class Branching(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) if float(images.sum()) > 0 else images.flatten(1) + 1

    with pytest.raises(MethodRefused, match="captured") as caught:
        images = image.Preprocessing(image_size=8, channels=1, mean=[0.5], std=[0.5])
        capture.require(Branching(), images, None, form="ONNX", field="spec.stages[0].export.formats[0].type")
    assert caught.value.field == "spec.stages[0].export.formats[0].type"


@pytest.mark.parametrize(
    ("change", "field"), [(lambda s: s + 0.1, "e.verify.atol"), (lambda s: -s, "e.verify.minAgreement"), (lambda s: s * numpy.nan, "")]
)
def test_parity_is_judged_on_differences_and_on_predictions(change: Callable[[Any], Any], field: str) -> None:
    scores = numpy.random.default_rng(0).normal(size=(50, 10)).astype("float32")
    same = parity.compare(scores, scores + 1e-5, Verify(), what="it")
    parity.require(same, Verify(), what="it", field="e")
    assert same.agreement == 1
    with pytest.raises(ParityFailed) as caught:
        parity.require(parity.compare(scores, change(scores), Verify(), what="it"), Verify(), what="it", field="e")
    assert caught.value.field == field


def test_latency_is_interleaved_and_noise_hits_both() -> None:
    order: list[str] = []
    taken = latency.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, warmup=1, iterations=3)
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert [len(times) for times in taken.values()] == [3, 3]
    found = latency.speedup([4.0, 4.0, 5.0], [1.0, 1.0, 1.0])
    assert found["value"] == 4
    assert 4 <= found["low"] <= found["high"] <= 5


def test_a_bundle_that_answers_differently_elsewhere_is_not_kept(run_stage: RunStage) -> None:
    with pytest.raises(ParityFailed, match="clean process"):
        run_stage({"fineTune": {"epochs": 2, "learningRate": 1e-2}}, model={"source": "python://tiny_models:forgetful"})
