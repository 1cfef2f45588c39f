"""PyTorch as the engine of a model that was read from a file."""

from collections.abc import Callable
from typing import Any

import torch

from kompress_jobs.engine import Engine


def engine(module: Callable[..., Any], threads: int) -> Engine:
    """On the CPU. The threads are the whole process's, so each call sets them, and puts them back."""

    def run(inputs: Any) -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return _answers(module, [torch.from_numpy(part) for part in inputs]).numpy()
        finally:
            torch.set_num_threads(before)

    return run


def engine_on_gpu(module: Callable[..., Any]) -> Engine:
    """On this process's GPU, where the module lies already. A call is a request: its inputs are copied there, its answer back."""

    def run(inputs: Any) -> Any:
        return _answers(module, [torch.from_numpy(part).cuda() for part in inputs]).cpu().numpy()

    return run


def _answers(module: Callable[..., Any], inputs: list[torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        outputs = module(*inputs)
    found: torch.Tensor = outputs[0] if isinstance(outputs, tuple | list) else outputs
    return found
