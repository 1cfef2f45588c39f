"""FPGM: a channel that lies near the middle of all others can be spoken for by them: worth is its distance to the others.

Y. He et al., Filter Pruning via Geometric Median, 2019, https://arxiv.org/abs/1811.00250.
It compares units with each other, so it has nothing to say of single weights or of whole layers.
"""

from collections.abc import Sequence

import torch
from torch import nn

from kompress_jobs.importances import TINY, Evidence, Part

EVIDENCE = Evidence.NONE


def units(parts: Sequence[Part]) -> torch.Tensor | None:
    """Of channels or heads, (units,); a scale of a norm is no filter and does not count."""
    filters = [part for part in parts if isinstance(part.layer, nn.Linear | nn.modules.conv._ConvNd)]
    if not filters:
        return None
    found = torch.stack([torch.cdist(part.weight, part.weight).sum(0) for part in filters]).mean(0)
    return found / found.mean().clamp(min=TINY)
