"""What a manifest may say and this version does not do is refused by its field, never ignored."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from kompress_api.errors import MethodRefused
from kompress_api.stages.distill import Distill
from kompress_api.stages.export import Export
from kompress_api.stages.fine_tune import FineTune
from kompress_api.stages.prune import Prune
from kompress_jobs import registry
from kompress_jobs.stages import export
from kompress_jobs.training import refusals

TRAINING: dict[str, Any] = {
    "mixup": 0.2,
    "cutmix": 1.0,
    "regularizers": [{"type": "L2SP", "weight": 0.1}],
    "activationCheckpointing": True,
    "parallelism": "FSDP2",
    "compile": True,
    "precision": "FP16",
}
FINE_TUNE = {
    "trainableModules": ["fc*"],
    "gradualUnfreezingEpochs": 1,
    "layerDecay": 0.5,
    "linearProbeEpochs": 1,
    "lora": {},
}
DISTILL = {
    "keepLayers": [1],
}
EXPORT: dict[str, dict[str, Any]] = {
    "formats[0].opset": {"formats": [{"type": "ONNX", "opset": 13}]},
    "formats[1].opset": {"formats": [{"type": "ONNX", "opset": 18}, {"type": "OpenVINO", "opset": 18}]},
    "targets[2].name": {"formats": [{"type": "ONNX"}], "targets": [{}, {"threads": 2}, {"name": "cpu1"}]},
    "formats[0].dynamicBatch": {"formats": [{"type": "ONNX", "dynamicBatch": False}], "targets": [{"batchSizes": [1, 8]}]},
    "targets[0].device": {"formats": [{"type": "ONNX"}], "targets": [{"device": "GPU"}]},
}


@pytest.mark.parametrize(
    ("model", "base", "fields"),
    [
        (FineTune, {"epochs": 1}, TRAINING | FINE_TUNE),
        (Distill, {"epochs": 1, "teachers": [{"from": "a"}]}, TRAINING | DISTILL),
    ],
)
def test_training_fields_are_refused_by_name(model: type[Any], base: dict[str, Any], fields: dict[str, Any]) -> None:
    refusals.refuse(model.model_validate(base), field="spec.stages[0].x")
    for field, value in fields.items():
        with pytest.raises(MethodRefused, match=field) as caught:
            refusals.refuse(model.model_validate(base | {field: value}), field="spec.stages[0].x")
        assert caught.value.field == f"spec.stages[0].x.{field}"
        assert caught.value.hint


def test_a_recovery_too() -> None:
    recovery = {"pruningRatio": 0.5, "recovery": {"epochs": 1, "compile": True}}
    with pytest.raises(MethodRefused) as caught:
        refusals.refuse(Prune.model_validate(recovery), field="p")
    assert caught.value.field == "p.recovery.compile"


def refuse_export(spec: Export) -> None:
    export.refuse(spec, {form.type: registry.load("exporters", form.type, field="e") for form in spec.formats}, field="e")


@pytest.mark.parametrize("field", EXPORT)
def test_exports(field: str) -> None:
    with pytest.raises(MethodRefused) as caught:
        refuse_export(TypeAdapter(Export).validate_python(EXPORT[field]))
    assert caught.value.field == f"e.{field}"


def test_the_table_names_fields_of_the_api_only() -> None:
    for model, rows in ((FineTune, refusals.TRAINING + refusals.FINE_TUNE), (Distill, refusals.DISTILL)):
        known = {field.alias for field in model.model_fields.values()}
        assert {row[0] for row in rows} <= known
