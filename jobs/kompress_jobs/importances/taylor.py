"""Taylor: a channel is worth the change of the loss, to first order, if its weights were zero: |weight * gradient|.

P. Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, https://arxiv.org/abs/1906.10771.
Reference: ViT-B/16 85.21 -> 80.19 at 4.6 G MACs (Torch-Pruning).
"""

from collections.abc import Callable

import torch

NEEDS_GRADIENTS = True


def build() -> Callable[..., torch.Tensor]:
    """A Torch-Pruning importance: group of coupled layers (gradients filled in) -> worth of each channel, (channels,)."""
    import torch_pruning

    return torch_pruning.importance.GroupTaylorImportance()  # type: ignore[no-any-return]
