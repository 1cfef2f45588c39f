"""Movement: what moves towards zero goes, whatever its size: worth is -weight * gradient, so it is negative where the loss would
shrink the weight.

V. Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning, 2020, https://arxiv.org/abs/2005.07683. The paper adds the worth
up while it trains; here it is added up over `calibrationBatches` before each of the iterative steps, while the weights rest.
"""

from collections.abc import Sequence

import torch

from kompress_jobs.importances import Evidence, Part, combined, total

EVIDENCE = Evidence.GRADIENT


def weights(weight: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
    """Of every single weight; `evidence` is the gradient."""
    return -weight * evidence


def units(parts: Sequence[Part]) -> torch.Tensor:
    """Of channels or heads, (units,)."""
    return combined(parts, weights)


def block(parts: Sequence[Part]) -> float:
    """Of a whole layer of the model."""
    return total(parts, weights)
