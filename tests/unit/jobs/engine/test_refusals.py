"""What a manifest may say and this version does not do is refused by its field, never ignored."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from kompress_api.errors import MethodRefused
from kompress_api.stages.distill import Distill
from kompress_api.stages.export import Export
from kompress_api.stages.fine_tune import FineTune
from kompress_api.stages.prune import Prune
from kompress_api.training import Training
from kompress_jobs import registry
from kompress_jobs.stages import export
from kompress_jobs.training import refusals

REFUSED: list[tuple[Any, dict[str, Any], str, str]] = [
    (FineTune, {"epochs": 1, "compile": True, "parallelism": "FSDP2"}, "compile", "FSDP2"),
    (FineTune, {"epochs": 1, "compile": True, "activationCheckpointing": True}, "compile", "activationCheckpointing"),
    (FineTune, {"epochs": 1, "strategy": "LoRA", "regularizers": [{"type": "L2SP", "weight": 1}]}, "regularizers", "LoRA"),
    (
        Prune,
        {"sparsity": 0.5, "granularity": "Weight", "recovery": {"epochs": 1, "parallelism": "FSDP2"}},
        "recovery.parallelism",
        "stay zero",
    ),
    (Prune, {"pruningRatio": 0.5, "recovery": {"epochs": 1, "compile": True, "parallelism": "FSDP2"}}, "recovery.compile", "FSDP2"),
]
ROUNDED: dict[str, Any] = {"compile": True, "parallelism": "FSDP2", "activationCheckpointing": True}
EXPORT: dict[str, dict[str, Any]] = {
    "formats[0].opset": {"formats": [{"type": "ONNX", "opset": 13}]},
    "formats[1].opset": {"formats": [{"type": "ONNX", "opset": 18}, {"type": "OpenVINO", "opset": 18}]},
    "targets[2].name": {"formats": [{"type": "ONNX"}], "targets": [{}, {"threads": 2}, {"name": "cpu1"}]},
    "formats[0].dynamicBatch": {"formats": [{"type": "ONNX", "dynamicBatch": False}], "targets": [{"batchSizes": [1, 8]}]},
    "targets[0].device": {"formats": [{"type": "ONNX"}], "targets": [{"device": "GPU"}]},
}


@pytest.mark.parametrize(("model", "own", "field", "why"), REFUSED, ids=str)
def test_what_a_training_can_not_do_is_refused_by_name_and_reason(model: Any, own: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(MethodRefused, match=why) as caught:
        refusals.refuse(model.model_validate(own), field="s")
    assert caught.value.field == f"s.{field}"
    assert caught.value.hint


@pytest.mark.parametrize("field", ROUNDED)
def test_training_that_rounds(field: str) -> None:
    refusals.refuse_rounded(Training.model_validate({"ema": {}}), field="q.training")
    with pytest.raises(MethodRefused) as caught:
        refusals.refuse_rounded(Training.model_validate({field: ROUNDED[field]}), field="q.training")
    assert caught.value.field == f"q.training.{field}"


def test_compile_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said by the preflight, and not by a stack trace of the compiler's after an hour in the queue."""
    spec = FineTune.model_validate({"epochs": 1, "compile": True})
    refusals.refuse(spec, field="f")
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with pytest.raises(MethodRefused, match="compiler") as caught:
        refusals.refuse(spec, field="f")
    assert caught.value.field == "f.compile"


def refuse_export(spec: Export) -> None:
    export.refuse(spec, {form.type: registry.load("exporters", form.type, field="e") for form in spec.formats}, field="e")


@pytest.mark.parametrize("field", EXPORT)
def test_exports(field: str) -> None:
    with pytest.raises(MethodRefused) as caught:
        refuse_export(TypeAdapter(Export).validate_python(EXPORT[field]))
    assert caught.value.field == f"e.{field}"


def test_the_tables_name_fields_of_the_api_only() -> None:
    tables = {
        FineTune: refusals.TRAINING + refusals.FINE_TUNE,
        Distill: refusals.DISTILL,
        Training: refusals.ROUNDED + refusals.MASKED,
    }
    for model, rows in tables.items():
        assert {row[0] for row in rows} <= {field.alias for field in model.model_fields.values()}
