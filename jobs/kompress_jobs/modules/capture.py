"""A model's graph as torch.export captures it: what ONNX, TorchExport and OpenVINO are written from."""

import warnings
from typing import TYPE_CHECKING, Any

import torch

from kompress_api.errors import MethodRefused

if TYPE_CHECKING:
    from kompress_jobs.preprocessing import Preprocessing


def capture(model: torch.nn.Module, preprocessing: "Preprocessing", batch: int | None) -> torch.export.ExportedProgram:
    """The graph of `model` in evaluation mode; `batch` is the only batch size that it takes, None: any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter itself
        return torch.export.export(model, preprocessing.sample(batch or 2), dynamic_shapes=free_axes(preprocessing, batch), strict=False)


def require(model: torch.nn.Module, preprocessing: "Preprocessing", batch: int | None, *, form: str, field: str) -> None:
    """Raise MethodRefused with torch's own words when the graph can't be captured."""
    try:
        capture(model, preprocessing, batch)
    except Exception as error:
        raise MethodRefused(
            f"the model's graph can't be captured for {form}: {str(error).strip().splitlines()[0]}",
            hint="remove control flow that depends on values from its forward pass"
            + (", or set dynamicBatch: false" if batch is None else ""),
            field=field,
        ) from error


def free_axes(preprocessing: "Preprocessing", batch: int | None) -> tuple[dict[int, Any], ...]:
    """Of each input, the axes that may have any length: the batch where none is given, and those that vary by nature, as a text's."""
    first = (0,) if batch is None else ()
    return tuple(dict.fromkeys((*first, *axes), torch.export.Dim.DYNAMIC) for axes in preprocessing.axes)
