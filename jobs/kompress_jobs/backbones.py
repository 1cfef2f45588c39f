"""Which inputs a model takes, found out by asking it: libraries don't say."""

from collections.abc import Sequence

import torch
from torch import nn

from kompress_jobs.samples import Inputs


def first_taken(model: nn.Module, candidates: Sequence[Inputs]) -> int | Exception:
    """Index of the first of `candidates` that a forward pass takes; when it takes none, what it said of the first."""
    problem: Exception | None = None
    training = model.training
    model.eval()
    try:
        for index, inputs in enumerate(candidates):
            try:
                with torch.no_grad():
                    model(*inputs)
                return index
            except Exception as error:
                problem = problem or error
    finally:
        model.train(training)
    return problem or ValueError("there is nothing to ask it")
