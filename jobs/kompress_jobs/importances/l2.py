"""L2: worth is the square of the weights, so a few large ones outweigh many small ones.

Y. He et al., Soft Filter Pruning, 2018, https://arxiv.org/abs/1808.06866 (filters by their l2-norm).
"""

from collections.abc import Sequence

import torch

from kompress_jobs.importances import Evidence, Part, combined, total

EVIDENCE = Evidence.NONE


def weights(weight: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
    """Of every single weight."""
    return weight.square()


def units(parts: Sequence[Part]) -> torch.Tensor:
    """Of channels or heads, (units,)."""
    return combined(parts, weights)


def block(parts: Sequence[Part]) -> float:
    """Of a whole layer of the model."""
    return total(parts, weights)
