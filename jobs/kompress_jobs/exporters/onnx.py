"""ONNX: torch.onnx's dynamo exporter, run by ONNX Runtime on the CPU (which folds batch norms and fuses by itself)."""

import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kompress_api.errors import MethodRefused

if TYPE_CHECKING:
    import numpy
    from torch import Tensor, nn

SUFFIX = ".onnx"
METADATA = "kompress"
"""Key of the model's own metadata: labels and preprocessing, as JSON."""


def lower(model: "nn.Module", sample: "Tensor", path: Path, *, opset: int | None, dynamic_batch: bool, metadata: Mapping[str, Any]) -> None:
    """Write `model` (evaluation mode, CPU) to `path`; `sample` is (batch, ...) and its first axis is free with `dynamic_batch`."""
    import torch

    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic_batch else None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter itself
        program = torch.onnx.export(
            model,
            (sample,),
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=opset,
            input_names=["input"],
            output_names=["scores"],
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[METADATA] = json.dumps(metadata, sort_keys=True)
    program.save(str(path))


def rehearse(model: "nn.Module", sample: "Tensor", *, dynamic_batch: bool, field: str) -> None:
    """Capture the graph as `lower` does; raises MethodRefused with the exporter's words when it can't be captured."""
    import torch

    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic_batch else None
    try:
        torch.export.export(model, (sample,), dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise MethodRefused(
            f"the model's graph can't be captured for ONNX: {str(error).strip().splitlines()[0]}",
            hint="remove control flow that depends on values from its forward pass"
            + (", or set dynamicBatch: false" if dynamic_batch else ""),
            field=field,
        ) from error


def open_engine(path: Path, threads: int) -> "Callable[[numpy.ndarray[Any, Any]], numpy.ndarray[Any, Any]]":
    """An engine: float32 inputs (batch, channels, size, size) -> scores (batch, classes)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(inputs: "numpy.ndarray[Any, Any]") -> "numpy.ndarray[Any, Any]":
        scores: numpy.ndarray[Any, Any] = session.run(None, {name: inputs})[0]
        return scores

    return run
