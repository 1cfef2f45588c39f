"""A value of the API without its module is refused by name; a module without its value would never be found."""

import pytest

from kompress_api.errors import UnknownMethod
from kompress_api.places import DATA_SCHEMES, MODEL_SCHEMES, DataFormat
from kompress_api.stages.distill import DistillLoss
from kompress_api.stages.export import FormatType
from kompress_api.stages.fine_tune import Strategy
from kompress_api.stages.fuse import FuseMethod
from kompress_api.stages.prune import Granularity, Importance
from kompress_api.stages.stage import KINDS
from kompress_api.training import Regularizer
from kompress_jobs import registry

VALUES: dict[str, list[str]] = {
    "strategies": list(Strategy),
    "losses": list(DistillLoss),
    "regularizers": list(Regularizer),
    "granularities": list(Granularity),
    "importances": list(Importance),
    "exporters": list(FormatType),
    "quantizers": ["onnx_runtime", "nncf"],  # named by exporters
    "models": [*MODEL_SCHEMES, "ensemble"],  # the last only in bundles
    "fusions": [method for method in FuseMethod if method is not FuseMethod.ENSEMBLE],
    "data": [*DATA_SCHEMES, *DataFormat],
    "stages": [*KINDS, "preflight", "report"],
    "tasks": ["image-classification", "text-classification", "audio-classification", "speech-recognition"],
}


@pytest.mark.parametrize("folder", VALUES)
def test_every_module_of_a_folder_is_a_value_of_the_api_and_can_be_imported(folder: str) -> None:
    names = {registry.module_name(value): value for value in VALUES[folder]}
    assert registry.known(folder), folder
    for name in registry.known(folder):
        assert name in names, f"{folder}/{name}.py is no value of the API"
        registry.load(folder, names[name], field="field")


@pytest.mark.parametrize("folder", VALUES)
def test_a_value_without_a_module_is_refused_with_field_and_known_ones(folder: str) -> None:
    """What a newer API names and this version has not built."""
    with pytest.raises(UnknownMethod) as caught:
        registry.load(folder, "Tomorrow", field="spec.stages[0].x")
    assert caught.value.field == "spec.stages[0].x"
    assert all(name in caught.value.message for name in registry.known(folder))
    assert caught.value.hint
