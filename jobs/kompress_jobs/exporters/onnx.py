"""ONNX: torch.onnx's dynamo exporter, run by ONNX Runtime on the CPU (which folds batch norms and fuses by itself)."""

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kompress_api.stages.quantize import QuantizeMode
from kompress_jobs.engine import Engine

if TYPE_CHECKING:
    from torch import nn

    from kompress_jobs.preprocessing import Preprocessing

SUFFIX = ".onnx"
QUANTIZER = "onnx_runtime"
MODES = tuple(QuantizeMode)
OPSETS = range(18, 24)
"""What torch's exporter writes without converting between versions, which may silently leave the graph as it is."""
FLOAT = 1
"""onnx.TensorProto.FLOAT."""
METADATA = "kompress"
"""Key of the model's own metadata: labels and preprocessing, as JSON."""


def lower(
    model: "nn.Module",
    preprocessing: "Preprocessing",
    path: Path,
    *,
    batch: int | None,
    metadata: Mapping[str, Any],
    recipe: Mapping[str, Any] | None = None,
    opset: int | None = None,
) -> None:
    """Write `model` (evaluation mode, CPU) to `path`; `batch` is the only batch size that the file takes, None: any."""
    import torch

    from kompress_jobs.modules.capture import free_axes
    from kompress_jobs.quantizers import onnx_runtime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter itself
        program = torch.onnx.export(
            model,
            preprocessing.sample(batch or 2),
            dynamo=True,
            dynamic_shapes=free_axes(preprocessing, batch),
            opset_version=opset,
            input_names=list(preprocessing.names),
            output_names=["scores"],
            verbose=False,
        )
    assert program is not None
    _add_as_sum(program.model.graph)
    program.model.metadata_props[METADATA] = json.dumps(metadata, sort_keys=True)
    if recipe is None:
        program.save(str(path))
        return
    plain = path.with_name(f"float-{path.name}")
    program.save(str(plain))
    onnx_runtime.apply(plain, path, dict(recipe))
    plain.unlink()


def _add_as_sum(graph: Any) -> None:
    """An addition that LayerNormalization reads becomes a Sum of two, which says the same. ONNX Runtime makes of the two one kernel for the
    CPU, SkipLayerNormalization, which takes 7 times as long as both (1.32; 384 and 768 columns, 16 to 1,024 rows)."""
    for node in graph:
        if node.op_type == "LayerNormalization":
            read = node.inputs[0].producer()
            if read is not None and read.op_type == "Add" and read.outputs[0].dtype == FLOAT:
                read.op_type = "Sum"


def open_engine(path: Path, threads: int) -> Engine:
    """ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Any) -> Any:
        return session.run(None, dict(zip(names, inputs, strict=True)))[0]

    return run
