"""OpenVINO: its intermediate representation (.xml, the weights beside it in .bin), made from the ONNX graph, run by its CPU plugin.

Its own quantizer makes static graphs; one with weights of fewer bits stays what ONNX Runtime's made of it, as the plugin reads MatMulNBits.
https://docs.openvino.ai/2026/openvino-workflow/model-preparation.html
"""

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kompress_api.stages.quantize import QuantizeMode
from kompress_jobs.engine import Engine
from kompress_jobs.exporters import onnx
from kompress_jobs.quantizers import nncf

if TYPE_CHECKING:
    from torch import nn

    from kompress_jobs.preprocessing import Preprocessing

SUFFIX = ".xml"
QUANTIZER = "onnx_runtime"
MODES = (QuantizeMode.STATIC, QuantizeMode.QAT, QuantizeMode.WEIGHT_ONLY)
"""Graphs of mode Dynamic are read too, and run slower than float ones (0.7 x on a MiniLM)."""
CALIBRATED = (QuantizeMode.STATIC, QuantizeMode.QAT)
METADATA = "kompress"
"""Name in the model's own rt_info: labels and preprocessing, as JSON."""


def lower(
    model: "nn.Module",
    preprocessing: "Preprocessing",
    path: Path,
    *,
    batch: int | None,
    metadata: Mapping[str, Any],
    recipe: Mapping[str, Any] | None = None,
    batches: Iterable[list[Any]] | None = None,
) -> None:
    """Write `model` (evaluation mode, CPU) to `path`; `batch` is the only batch size that the file takes, None: any. `batches` are samples
    for a recipe whose mode is in CALIBRATED."""
    openvino = library()
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph.onnx"
        if recipe is None or batches is None:
            onnx.lower(model, preprocessing, graph, batch=batch, metadata={}, recipe=recipe)
            converted = openvino.Core().read_model(str(graph))
        else:
            onnx.lower(model, preprocessing, graph, batch=None, metadata={})
            converted = nncf.quantized(graph, openvino.Core().read_model(str(graph)), dict(recipe), batches)
            if batch is not None:
                converted.reshape({port: openvino.PartialShape([batch, *list(port.partial_shape)[1:]]) for port in converted.inputs})
        converted.set_rt_info(json.dumps(metadata, sort_keys=True), [METADATA])
        openvino.save_model(converted, str(path), compress_to_fp16=False)


def open_engine(path: Path, threads: int) -> Engine:
    """OpenVINO's CPU plugin. It computes in float32: else it would take bfloat16 on its own where the processor has it."""
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    compiled = library().Core().compile_model(str(path), "CPU", settings)

    def run(inputs: Any) -> Any:
        return compiled(list(inputs))[0]

    return run


def library() -> Any:
    """The library without its telemetry: on import that would send a message to its makers, and write into the home directory."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
