"""How an engine's graph gets fewer bits, by that engine's own quantizer. An exporter names the quantizer whose recipes it takes
(`QUANTIZER`), a module with

- `refuse(spec, field)`, which raises MethodRefused for what the engine has no kernel for,
- `calibrate(source, recipe, batches) -> Recipe`, which fills in what must be seen of the data (`batches` are lists of arrays),
- `apply(source, target, recipe)`, which writes the quantized graph of the float graph at `source`.

A recipe is JSON and lies in the bundle: the same float graph and the same recipe give the same quantized graph anywhere. `nncf` is no
recipe's quantizer: it keeps no ranges, so that OpenVINO's exporter gives it samples of the job's train split each time.
"""

from typing import Any

from kompress_api.stages.quantize import Quantize

Recipe = dict[str, Any]


def recipe_of(spec: Quantize, quantizer: str) -> Recipe:
    """What is asked, without what must be seen of the data."""
    return {
        "quantizer": quantizer,
        "mode": spec.mode.value,
        "scheme": spec.scheme.value,
        "perChannel": spec.per_channel,
        "ignore": list(spec.ignore),
        "calibration": spec.calibration.method,
        "samples": spec.calibration.num_samples,
        "ranges": None,
    }
