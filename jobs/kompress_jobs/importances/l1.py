"""L1: worth is the absolute value of the weights.

H. Li et al., Pruning Filters for Efficient ConvNets, 2017, https://arxiv.org/abs/1608.08710; for single weights: S. Han et al.,
Learning both Weights and Connections, 2015, https://arxiv.org/abs/1506.02626.
"""

from collections.abc import Sequence

import torch

from kompress_jobs.importances import Evidence, Part, combined, total

EVIDENCE = Evidence.NONE


def weights(weight: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
    """Of every single weight."""
    return weight.abs()


def units(parts: Sequence[Part]) -> torch.Tensor:
    """Of channels or heads, (units,)."""
    return combined(parts, weights)


def block(parts: Sequence[Part]) -> float:
    """Of a whole layer of the model."""
    return total(parts, weights)
