"""nncf: OpenVINO's own quantizer, for the modes Static and QAT.

It knows which sums that engine's kernels fuse: a graph of ONNX Runtime's quantizer, which OpenVINO reads too, was 1.03 x as slow there on
ResNet-18 and 1.35 x on MiniLM. Transformers are smoothed first (SmoothQuant, G. Xiao et al., 2022, https://arxiv.org/abs/2211.10438).
https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
"""

import contextlib
import io
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kompress_api.stages.quantize import QuantizeMode
from kompress_jobs.quantizers import Recipe
from kompress_jobs.quantizers.onnx_runtime import READS_FLOATS, ignored, nodes_of

RANGES = {"Percentile": "MEAN_QUANTILE", "Entropy": "HISTOGRAM"}
"""What it has that is nearest to these ways to find a range. For MinMax it is left to its own: the mean of the batches' extremes."""


def quantized(graph: Path, model: Any, recipe: Recipe, batches: Iterable[list[Any]]) -> Any:
    """The quantized model of OpenVINO's `model`, which was read from the ONNX file `graph`. `batches` are read more than once."""
    import nncf
    from nncf.quantization.advanced_parameters import QuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet

    logging.getLogger("nncf").setLevel(logging.ERROR)
    operators = {node.op_type for node in nodes_of(graph)}
    named = RANGES.get(recipe["calibration"])
    left_alone = [f"{re.escape(name)}(/.*)?$" for name in ignored(graph, recipe["ignore"])]
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(batches),
            subset_size=recipe["samples"],  # all of them
            model_type=nncf.ModelType.TRANSFORMER if operators.issuperset(READS_FLOATS) else None,
            # Training has rounded to bytes with a zero point: "mixed"; else what suits the kind of model.
            preset=nncf.QuantizationPreset.MIXED if recipe["mode"] == QuantizeMode.QAT else None,
            ignored_scope=nncf.IgnoredScope(patterns=left_alone, validate=False) if left_alone else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                weights_quantization_params=QuantizationParameters(per_channel=recipe["perChannel"]),
                activations_range_estimator_params=getattr(RangeEstimatorParametersSet, named) if named else RangeEstimatorParameters(),
            ),
        )
