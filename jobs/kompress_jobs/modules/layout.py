"""The order of a convolution's values in memory. CPUs compute convolutions with the channels last (NHWC), and so do those whose weights lie
that way, whatever their input; a model that is told otherwise has its activations turned around at every layer.

https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def channels_last(model: nn.Module) -> list[nn.Module]:
    """Lay the weights of convolutions on a CPU that way, in place: parameters stay the same objects with the same values. Returns the
    convolutions that lay otherwise. GPUs have gained nothing by it."""
    turned = [module for module in model.modules() if isinstance(module, CONVOLUTIONS) and not lies_so(module)]
    for module in turned:
        module.to(memory_format=torch.channels_last)
    return turned


def lies_so(convolution: nn.Module) -> bool:
    """Whether it need not be touched."""
    weights = [parameter for parameter in convolution.parameters() if parameter.ndim == 4]
    return all(weight.device.type != "cpu" or weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def channels_first(model: nn.Module) -> None:
    """Lay them out as PyTorch makes them, as files hold them."""
    for module in model.modules():
        if isinstance(module, CONVOLUTIONS):
            module.to(memory_format=torch.contiguous_format)


@contextmanager
def computing(model: nn.Module) -> Iterator[None]:
    """`channels_last` for a while; what lay so before is left so."""
    turned = channels_last(model)
    try:
        yield
    finally:
        for module in turned:
            module.to(memory_format=torch.contiguous_format)
