"""FSDP2: weights, gradients and the optimizer's memory spread over the processes, block by block.

S. Rajbhandari et al., ZeRO, 2020, https://arxiv.org/abs/1910.02054; Y. Zhao et al., PyTorch FSDP, 2023, https://arxiv.org/abs/2304.11277.
What is sharded is a copy that learns. The model itself stays whole on every rank, for evaluation and for the bundle: so it must fit there.
"""

import copy
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from kompress_jobs.training.depth import blocks


def sharded(model: nn.Module) -> nn.Module:
    """Collective: a copy whose weights are spread over all processes."""
    other = copy.deepcopy(model)
    mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    for name in blocks(other):
        fully_shard(other.get_submodule(name), mesh=mesh)
    fully_shard(other, mesh=mesh)
    return other


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Collective for a sharded tensor: all of it, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part, in place."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Collective: all of each."""
    return {name: whole(tensor) for name, tensor in tensors.items()}
