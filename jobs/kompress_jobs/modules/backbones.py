"""Which inputs a model takes, found out by asking it: libraries don't say."""

from collections.abc import Sequence

import torch
from torch import nn

from kompress_jobs.samples import Inputs


def first_taken(model: nn.Module, candidates: Sequence[Inputs], *, training: bool = False) -> int | Exception:
    """Index of the first of `candidates` that a forward pass takes; when it takes none, what it said of the first.

    With `training` it is asked in training mode, which may have more heads, and changes what batch norms remember: ask a copy.
    """
    problem: Exception | None = None
    before = model.training
    model.train(training)
    try:
        for index, inputs in enumerate(candidates):
            try:
                with torch.no_grad():
                    model(*inputs)
                return index
            except Exception as error:
                problem = problem or error
    finally:
        model.train(before)
    return problem or ValueError("there is nothing to ask it")
