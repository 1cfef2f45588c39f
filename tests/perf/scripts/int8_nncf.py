"""Static int8 by nncf for OpenVINO, its own engine, as its README has it.

python int8_nncf.py JSON: what a peer's script is given, and `graph`, `samples`, `written`
"""

from typing import Any

import nncf
import openvino
from int8_onnx_runtime import calibration
from original import Original, answer, given


def quantize(original: Original) -> dict[str, Any]:
    asked = original.asked
    samples = list(calibration(original))
    transformer = nncf.ModelType.TRANSFORMER if asked["task"] == "text-classification" else None
    found = nncf.quantize(
        openvino.Core().read_model(asked["graph"]),
        nncf.Dataset(samples, lambda inputs: [part.numpy() for part in inputs]),
        subset_size=len(samples),
        model_type=transformer,
    )
    openvino.save_model(found, asked["written"], compress_to_fp16=False)
    return {"file": asked["written"]}


answer(lambda: quantize(given()))
