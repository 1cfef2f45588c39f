"""Hessian: worth is the change of the loss, to second order, at a minimum: weight^2 * h, with h the diagonal of the Hessian.

Y. LeCun et al., Optimal Brain Damage, 1989, https://proceedings.neurips.cc/paper/1989/hash/6c9882bbac1c7093bd25041881277658-Abstract.html;
h is taken to be the mean of the squared gradients of single samples (empirical Fisher), which costs a backward pass a sample.
"""

from collections.abc import Sequence

import torch

from kompress_jobs.importances import Evidence, Part, combined, total

EVIDENCE = Evidence.SQUARES


def weights(weight: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
    """Of every single weight; `evidence` is the mean squared gradient."""
    return weight.square() * evidence


def units(parts: Sequence[Part]) -> torch.Tensor:
    """Of channels or heads, (units,)."""
    return combined(parts, weights)


def block(parts: Sequence[Part]) -> float:
    """Of a whole layer of the model."""
    return total(parts, weights)
