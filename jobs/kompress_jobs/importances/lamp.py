"""LAMP: a squared weight counts as its share of all that are at least as large in its layer, so one threshold over all layers
leaves every layer its best.

J. Lee et al., Layer-Adaptive Sparsity for the Magnitude-based Pruning, 2021, https://arxiv.org/abs/2010.07611.
Whole layers can't be compared by it: the largest of each has the same worth, 1.
"""

from collections.abc import Sequence

import torch

from kompress_jobs.importances import TINY, Evidence, Part, combined

EVIDENCE = Evidence.NONE


def weights(weight: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
    """Of every single weight."""
    return share_of_rest(weight.square().flatten()).view_as(weight)


def units(parts: Sequence[Part]) -> torch.Tensor:
    """Of channels or heads, (units,)."""
    return share_of_rest(combined(parts, lambda weight, _: weight.square()))


def share_of_rest(squares: torch.Tensor) -> torch.Tensor:
    """Each over the sum of itself and all larger ones, (any,)."""
    ordered, order = squares.double().sort()
    rest = ordered.flip(0).cumsum(0).flip(0)
    found = torch.empty_like(ordered)
    found[order] = ordered / rest.clamp(min=TINY)
    return found.to(squares.dtype)
