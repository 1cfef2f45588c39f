"""What is added to the task's loss for the weights' own sake. The regularizer's name is the module, with `penalty(weights, start)`, a
differentiable scalar:

- `weights`: those that learn, by name, without biases and norms;
- `start`: where training began, for those of them that brought something along. A fresh head did not.
"""

from collections.abc import Mapping, Sequence

import torch

from kompress_api.training import WeightedRegularizer
from kompress_jobs import registry

Weights = Mapping[str, torch.Tensor]


def add_gradients(parts: Sequence[WeightedRegularizer], weights: Weights, start: Weights, scale: float) -> torch.Tensor:
    """Add the penalties' gradients, times `scale`, to those that the weights hold; returns the sum of the penalties.

    Beside the task's backward pass and not in it: a penalty is the same on every rank and for every micro-batch, so it is taken once.
    """
    total = sum(part.weight * registry.load("regularizers", part.type, field="regularizers").penalty(weights, start) for part in parts)
    assert isinstance(total, torch.Tensor)
    held = [weight for weight in weights.values() if weight.grad is not None]
    gradients = torch.autograd.grad(total, held, allow_unused=True)
    for weight, gradient in zip(held, gradients, strict=True):
        if gradient is not None:
            weight.grad.add_(gradient, alpha=scale)  # type: ignore[union-attr]
    return total.detach()
