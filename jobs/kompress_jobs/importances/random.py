"""Random: worth is drawn, the control that any other importance must beat.

D. Mittal et al., Recovering from Random Pruning, 2018, https://arxiv.org/abs/1801.10447 (with enough recovery it comes close).
"""

from collections.abc import Sequence

import torch

from kompress_jobs.importances import Evidence, Part

EVIDENCE = Evidence.NONE


def weights(weight: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
    """Of every single weight."""
    return torch.rand(weight.shape).to(weight.device)  # drawn on the CPU: the same on every device


def units(parts: Sequence[Part]) -> torch.Tensor:
    """Of channels or heads, (units,)."""
    return torch.rand(len(parts[0].weight))


def block(parts: Sequence[Part]) -> float:
    """Of a whole layer of the model."""
    return float(torch.rand(()))
