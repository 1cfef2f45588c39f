"""BNScale: a channel is worth the scale of its batch norm.

Z. Liu et al., Learning Efficient Convolutional Networks through Network Slimming, 2017, https://arxiv.org/abs/1708.06519.
Channels without a batch norm stay as they are; single weights, heads without one and whole layers can't be ranked by it.
"""

from collections.abc import Sequence

import torch
from torch import nn

from kompress_jobs.importances import Evidence, Part, combined

EVIDENCE = Evidence.NONE


def units(parts: Sequence[Part]) -> torch.Tensor | None:
    """Of channels, (units,)."""
    scales = [part for part in parts if isinstance(part.layer, nn.modules.batchnorm._BatchNorm)]
    return combined(scales, lambda weight, _: weight.abs()) if scales else None
