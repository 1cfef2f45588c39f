"""PyTorch as the engine of a model that was read from a file."""

from collections.abc import Callable
from typing import Any

import torch

from kompress_jobs.exporters import Engine


def engine(module: Callable[..., Any], threads: int) -> Engine:
    """The threads are the whole process's, so each call sets them, and puts them back."""

    def run(inputs: Any) -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                outputs = module(*(torch.from_numpy(part) for part in inputs))
        finally:
            torch.set_num_threads(before)
        return (outputs[0] if isinstance(outputs, tuple | list) else outputs).numpy()

    return run
