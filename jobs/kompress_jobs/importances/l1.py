"""L1: a channel is worth the mean absolute value of all weights that go with it.

H. Li et al., Pruning Filters for Efficient ConvNets, 2017, https://arxiv.org/abs/1608.08710; over coupled layers as in
G. Fang et al., DepGraph, 2023, https://arxiv.org/abs/2301.12900.
"""

from collections.abc import Callable

import torch

NEEDS_GRADIENTS = False


def build() -> Callable[..., torch.Tensor]:
    """A Torch-Pruning importance: group of coupled layers -> worth of each channel, (channels,)."""
    import torch_pruning

    return torch_pruning.importance.GroupMagnitudeImportance(p=1)  # type: ignore[no-any-return]
