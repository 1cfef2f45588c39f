"""nncf: OpenVINO's own quantizer, for static graphs and those of quantization-aware training. It knows which sums that engine's kernels
fuse: a graph of ONNX Runtime's quantizer, which OpenVINO reads too, was 1.03 x as slow there on ResNet-18 and 1.35 x on MiniLM, where it
also lost 3 points. Transformers are smoothed first (SmoothQuant, G. Xiao et al., 2022, https://arxiv.org/abs/2211.10438). It keeps no
ranges, so it sees the samples each time.
https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
"""

import contextlib
import io
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kompress_jobs.quantizers import Recipe
from kompress_jobs.quantizers.onnx_runtime import ignored

RANGES = {"MinMax": "MEAN_MINMAX", "Percentile": "MEAN_QUANTILE", "Entropy": "HISTOGRAM"}
"""Its names for how a range follows from what was seen."""
ATTENTION = {"Softmax", "LayerNormalization"}


def quantized(graph: Path, model: Any, recipe: Recipe, batches: Iterable[list[Any]]) -> Any:
    """The quantized model of OpenVINO's `model`, which was read from the ONNX file `graph`."""
    import nncf
    import onnx
    from nncf.quantization.advanced_parameters import QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    logging.getLogger("nncf").setLevel(logging.ERROR)
    samples = list(batches)
    operators = {node.op_type for node in onnx.load(str(graph), load_external_data=False).graph.node}
    ranges = getattr(RangeEstimatorParametersSet, RANGES[recipe["calibration"]])
    left_alone = [f"{re.escape(name)}(/.*)?" for name in ignored(graph, recipe["ignore"])]
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(samples),
            subset_size=len(samples),
            model_type=nncf.ModelType.TRANSFORMER if operators >= ATTENTION else None,
            ignored_scope=nncf.IgnoredScope(patterns=left_alone, validate=False) if left_alone else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                weights_quantization_params=QuantizationParameters(per_channel=recipe["perChannel"]),
                activations_range_estimator_params=ranges,
            ),
        )
