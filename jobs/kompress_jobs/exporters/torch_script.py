"""TorchScript: a trace of the model, frozen (batch norms folded into constants), run by PyTorch's TorchScript interpreter.

Deprecated since PyTorch 2.5, for those whose server takes nothing else. A trace keeps what the sample inputs did: where the model decides
by values, the trace has decided for good, and only parity on real inputs shows it.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kompress_api.errors import MethodRefused
from kompress_jobs.engine import Engine

if TYPE_CHECKING:
    import torch
    from torch import nn

    from kompress_jobs.preprocessing import Preprocessing
    from kompress_jobs.samples import Inputs

SUFFIX = ".pt"
DEPRECATED = "PyTorch has deprecated TorchScript and will take it out: use TorchExport where your server can read it"
METADATA = "kompress"
"""Name of the extra file: labels and preprocessing, as JSON."""


def lower(model: "nn.Module", preprocessing: "Preprocessing", path: Path, *, batch: int | None, metadata: Mapping[str, Any]) -> None:
    """Write `model` (evaluation mode, CPU) to `path`. A trace does not insist on `batch`."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(trace(model, preprocessing, batch), str(path), _extra_files={METADATA: json.dumps(metadata, sort_keys=True)})


def trace(model: "nn.Module", preprocessing: "Preprocessing", batch: int | None) -> "torch.jit.ScriptModule":
    """What the model does with the sample inputs."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the deprecation, and the tracer's own: parity decides
        traced = torch.jit.trace(model, preprocessing.sample(batch or 2), check_trace=False, strict=False)
        return torch.jit.freeze(traced)


def rehearse(model: "nn.Module", preprocessing: "Preprocessing", *, batch: int | None, field: str) -> None:
    """Trace the model and call the trace with inputs of another shape; raises MethodRefused when it does not answer as the model does."""
    import torch

    try:
        probe = other_shape(preprocessing, batch)
        with torch.no_grad():
            found, expected = trace(model, preprocessing, batch)(*probe), model(*probe)
        if isinstance(expected, tuple):
            found, expected = found[0], expected[0]
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    except Exception as error:
        raise MethodRefused(
            f"a trace of the model for TorchScript does not answer inputs of another shape as the model does: "
            f"{str(error).strip().splitlines()[0]}",
            hint="use TorchExport" + (", or set dynamicBatch: false" if batch is None else ""),
            field=field,
        ) from error


def other_shape(preprocessing: "Preprocessing", batch: int | None) -> "Inputs":
    """Inputs unlike those that were traced on each axis that is free."""
    found = []
    for part, axes in zip(preprocessing.sample(batch or 3), preprocessing.axes, strict=True):
        for axis in axes:
            part = part.narrow(axis, 0, (part.shape[axis] + 1) // 2)  # noqa: PLW2901
        found.append(part.contiguous())
    return tuple(found)


def open_engine(path: Path, threads: int) -> Engine:
    """PyTorch's TorchScript interpreter on the CPU."""
    from kompress_jobs.modules.torch_engine import engine

    return engine(_loaded(path, "cpu"), threads)


def open_on_gpu(path: Path) -> Engine:
    """The same on the GPU. What the trace has made on the CPU stays there: a model that makes tensors as it runs can't be moved."""
    from kompress_jobs.modules.torch_engine import engine_on_gpu

    return engine_on_gpu(_loaded(path, "cuda"))


def _loaded(path: Path, device: str) -> "torch.jit.ScriptModule":
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.load(str(path), map_location=device)
