"""The rehearsal finds in seconds what would fail after hours, and how large each stage's model will be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stage_contexts import build_context

from kompress_api.errors import KompressError, LabelMismatch, MethodRefused, UnknownModel
from kompress_api.job import CompressionJobSpec
from kompress_jobs.bench import Bench
from kompress_jobs.context import StageOutput
from kompress_jobs.description import Loaded
from kompress_jobs.rehearsal.rehearse import Forecast, rehearse
from kompress_jobs.samples.splits import Data

ADAPT = {"name": "adapt", "fineTune": {"epochs": 1}}
STUDENT = {"source": "python://tiny_models:convolutional", "arguments": {"width": 8}}
LEARN = {"name": "learn", "distill": {"teachers": [{"from": "adapt"}], "student": STUDENT, "epochs": 1}}
SLIM = {"name": "slim", "prune": {"pruningRatio": 0.5, "roundTo": 1, "scope": "Local", "recovery": {"epochs": 1}}}
SHIP = {"name": "ship", "export": {"formats": [{"type": "ONNX"}]}}


def run(digits: Data, folder: Path, stages: list[dict[str, Any]], **fields: Any) -> dict[str, Forecast]:
    content = {
        "task": "image-classification",
        "model": {"source": "python://tiny_models:convolutional"},
        "dataset": {"source": "builtin://digits"},
        "stages": stages,
    }
    return rehearse(CompressionJobSpec.model_validate(content | fields), digits, folder)


def test_sizes_are_forecast_exactly_where_the_method_fixes_them(digits: Data, tmp_path: Path) -> None:
    found = run(digits, tmp_path, [ADAPT, LEARN, SLIM, SHIP])
    wide, narrow = 16 * 9 + 32 + 16 * 32 * 9 + 64 + 330, 8 * 9 + 16 + 8 * 16 * 9 + 32 + 170
    assert found["source"].parameters == found["adapt"].parameters == wide
    assert found["learn"].parameters == narrow
    assert found["slim"].parameters == 4 * 9 + 8 + 4 * 8 * 9 + 16 + 90 == found["ship"].parameters
    assert found["source"].macs == 64 * 16 * 9 + 16 * 16 * 32 * 9 + 320
    assert all(entry.exact for entry in found.values())


SHORT = {"name": "short", "distill": {"teachers": [{"from": "adapt"}], "keepLayers": [0, 2], "epochs": 1}}


def test_a_shortened_teacher_is_forecast_exactly(digits: Data, tmp_path: Path) -> None:
    found = run(digits, tmp_path, [ADAPT, SHORT], model={"source": "python://tiny_models:residual"})
    block = 8 * 16 * 9 + 2 * 16 + 16 * 8 + 8
    assert found["short"].exact
    assert found["short"].parameters == found["source"].parameters - block


UNSURE: list[tuple[str, dict[str, Any]]] = [
    ("convolutional", {"pruningRatio": 0.5}),
    ("convolutional", {"pruningRatio": 0.4, "roundTo": 4, "iterativeSteps": 3}),
    ("residual", {"pruningRatio": 0.6, "scope": "Isomorphic", "maxPruningRatio": 0.7}),
    ("convolutional", {"constraints": {"params": 2000}}),
    ("convolutional", {"constraints": {"macs": 50_000}, "scope": "Isomorphic"}),
    ("convolutional", {"search": {"maxDegradation": 1, "maxTrials": 2}, "scope": "Local"}),
]


@pytest.mark.parametrize(("name", "own"), UNSURE, ids=str)
def test_where_the_weights_decide_the_range_holds_for_what_the_stage_makes(
    name: str, own: dict[str, Any], digits: Data, tmp_path: Path, run_stage: Callable[..., StageOutput]
) -> None:
    slim, model = {"importance": "L1", "roundTo": 1} | own, {"source": f"python://tiny_models:{name}"}
    tune = {"name": "tune", "fineTune": {"epochs": 1}}
    found = run(digits, tmp_path, [{"name": "slim", "prune": slim}, tune], model=model)
    assert not found["slim"].exact
    made = run_stage({"prune": slim}, model=model).metrics
    for forecast in (found["slim"], found["tune"]):
        assert forecast.low.parameters <= made["parameters"] <= forecast.high.parameters
        assert forecast.low.macs <= made["macs"] <= forecast.high.macs
        assert forecast.low.model_size_bytes <= made["modelSizeBytes"] <= forecast.high.model_size_bytes
        assert forecast.low.parameters <= forecast.parameters <= forecast.high.parameters
    budget = own.get("constraints", {})
    assert found["tune"].high.parameters <= budget.get("params", found["source"].parameters)
    assert found["tune"].high.macs <= budget.get("macs", found["source"].macs)


EXACT: list[tuple[str, dict[str, Any]]] = [
    ("convolutional", {"pruningRatio": 0.5, "scope": "Local", "iterativeSteps": 3, "schedule": "Cubic"}),
    ("convolutional", {"constraints": {"params": 2000}, "scope": "Local", "iterativeSteps": 2}),
    ("convolutional", {"granularity": "Weight", "sparsity": 0.5}),
    ("convolutional", {"granularity": "NM", "pattern": "2:4"}),
    ("vit", {"granularity": "Head", "pruningRatio": 0.5, "scope": "Local"}),
    ("residual", {"granularity": "Layer", "pruningRatio": 0.3}),
]


@pytest.mark.parametrize(("name", "own"), EXACT, ids=str)
def test_where_counts_decide_the_forecast_is_what_the_stage_makes(
    name: str, own: dict[str, Any], digits: Data, tmp_path: Path, run_stage: Callable[..., StageOutput]
) -> None:
    slim, model = {"importance": "L1", "roundTo": 1} | own, {"source": f"python://tiny_models:{name}"}
    found = run(digits, tmp_path, [{"name": "slim", "prune": slim}], model=model)["slim"]
    made = run_stage({"prune": slim}, model=model).metrics
    assert found.exact
    assert (found.parameters, found.macs) == (made["parameters"], made["macs"])


def test_a_second_pruning_starts_from_the_range_of_the_first(digits: Data, tmp_path: Path) -> None:
    first = {"name": "first", "prune": {"importance": "L1", "roundTo": 1, "pruningRatio": 0.3}}
    found = run(digits, tmp_path, [first, SLIM])
    assert not found["slim"].exact
    assert found["slim"].low.parameters < found["slim"].parameters < found["slim"].high.parameters < found["source"].parameters


def test_a_budget_out_of_reach_is_refused_before_anything_runs(digits: Data, tmp_path: Path) -> None:
    with pytest.raises(MethodRefused, match="parameters") as caught:
        run(digits, tmp_path, [{"name": "slim", "prune": {"constraints": {"params": 50}, "importance": "L1"}}])
    assert caught.value.field == "spec.stages[0].prune.constraints"


@pytest.mark.parametrize(
    ("stages", "error", "field"),
    [
        ([{"name": "a", "fineTune": {"epochs": 1, "strategy": "LoRA"}}], MethodRefused, "spec.stages[0].fineTune.lora"),
        (
            [ADAPT, {"name": "b", "fineTune": {"epochs": 1, "activationCheckpointing": True}}],
            MethodRefused,
            "spec.stages[1].fineTune.activationCheckpointing",
        ),
        (
            [{"name": "a", "fineTune": {"epochs": 1, "frozenModules": ["*"]}}],
            MethodRefused,
            "spec.stages[0].fineTune.frozenModules",
        ),
        (
            [ADAPT, {**LEARN, "distill": LEARN["distill"] | {"student": {"source": "timm://resnet10x"}}}],  # type: ignore[operator]
            UnknownModel,
            "spec.stages[1].distill.student.source",
        ),
        ([ADAPT, SHORT], MethodRefused, "spec.stages[1].distill.keepLayers"),
        ([ADAPT, {"name": "b", "prune": {"pruningRatio": 0.5, "importance": "Loss"}}], MethodRefused, "spec.stages[1].prune.importance"),
        (
            [ADAPT, {"name": "b", "prune": {"pruningRatio": 0.5, "granularity": "Head"}}],
            MethodRefused,
            "spec.stages[1].prune.granularity",
        ),
        ([ADAPT, {"name": "b", "prune": {"pruningRatio": 0.5, "roundTo": 64}}], MethodRefused, "spec.stages[1].prune.pruningRatio"),
        (
            [{"name": "a", "quantize": {}}, {"name": "b", "export": {"formats": [{"type": "ONNX"}, {"type": "TorchExport"}]}}],
            MethodRefused,
            "spec.stages[1].export.formats[1].precision",
        ),
        (
            [{"name": "a", "quantize": {}}, {"name": "b", "export": {"formats": [{"type": "TorchScript", "precision": "INT8"}]}}],
            MethodRefused,
            "spec.stages[1].export.formats[0].precision",
        ),
        (
            [{"name": "a", "quantize": {"mode": "Dynamic"}}, {"name": "b", "export": {"formats": [{"type": "OpenVINO"}]}}],
            MethodRefused,
            "spec.stages[1].export.formats[0].precision",
        ),
        (
            [ADAPT, {"name": "b", "export": {"formats": [{"type": "OpenVINO", "precision": "INT8"}]}}],
            MethodRefused,
            "spec.stages[1].export.formats[0].precision",
        ),
        (
            [ADAPT, {"name": "b", "export": {"formats": [{"type": "TorchExport", "opset": 20}]}}],
            MethodRefused,
            "spec.stages[1].export.formats[0].opset",
        ),
        ([ADAPT, {"name": "b", "quantize": {"scheme": "FP8"}}], MethodRefused, "spec.stages[1].quantize.scheme"),
    ],
)
def test_what_can_not_work_is_refused_by_its_field(
    stages: list[dict[str, Any]], error: type[KompressError], field: str, digits: Data, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        run(digits, tmp_path, stages)
    assert caught.value.field == field
    assert caught.value.hint


def test_a_student_bundle_with_other_labels_is_refused(digits: Data, tmp_path: Path) -> None:
    found = Bench(build_context(tmp_path, {"fineTune": {"epochs": 1}})).take("model")
    other = Loaded(found.model, found.description.model_copy(update={"labels": list("abcdefghij")}))
    from kompress_jobs.stages import distill

    with pytest.raises(LabelMismatch, match="teacher"):
        distill.require_one_label_map([found], other, field="spec.stages[1].distill")


def test_seeds_that_would_change_nothing_are_refused(digits: Data, tmp_path: Path) -> None:
    """A spread of zero would look like a method that never fails."""
    slim = {"name": "slim", "prune": {"importance": "L1", "pruningRatio": 0.5, "roundTo": 1}}
    run(digits, tmp_path, [ADAPT, slim], evaluation={"seeds": 3})
    with pytest.raises(MethodRefused) as caught:
        run(digits, tmp_path, [slim], evaluation={"seeds": 3})
    assert caught.value.field == "spec.evaluation.seeds"
