"""Taylor: worth is the change of the loss, to first order, if the weights were zero: |weight * gradient|.

P. Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, https://arxiv.org/abs/1906.10771; of whole layers:
B.-K. Kim et al., Shortened LLaMA, 2024, https://arxiv.org/abs/2402.02834.
Reference: ViT-B/16 85.21 -> 80.19 at 4.6 G MACs (Torch-Pruning).
"""

from collections.abc import Sequence

import torch

from kompress_jobs.importances import Evidence, Part, combined, total

EVIDENCE = Evidence.GRADIENT


def weights(weight: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
    """Of every single weight; `evidence` is the gradient."""
    return (weight * evidence).abs()


def units(parts: Sequence[Part]) -> torch.Tensor:
    """Of channels or heads, (units,)."""
    return combined(parts, weights)


def block(parts: Sequence[Part]) -> float:
    """Of a whole layer of the model."""
    return total(parts, weights)
