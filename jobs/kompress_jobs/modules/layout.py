"""The order of a convolution's values in memory. CPUs compute convolutions with the channels last (NHWC): with weights that lie so their
outputs do, too, and are not turned around at every layer. What a model computes is the same.

https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from kompress_jobs.samples import Inputs

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def channels_last(model: nn.Module, sample: Inputs) -> list[nn.Module]:
    """Turn the weights of convolutions on a CPU, in place: parameters stay the same objects with the same values. Returns the convolutions
    that were turned. A model that can't take `sample` any more is left as it was, as one with `view` is. GPUs have gained nothing by it."""
    turned = [module for module in model.modules() if isinstance(module, CONVOLUTIONS) and not lies_so(module)]
    turn(turned, torch.channels_last)
    if turned and not takes(model, sample):
        turn(turned, torch.contiguous_format)
        return []
    return turned


def lies_so(convolution: nn.Module) -> bool:
    """Whether it need not be turned."""
    weights = [weight for weight in convolution.parameters() if weight.ndim == 4 and weight.device.type == "cpu"]
    wanted = (torch.empty(weight.shape, device="meta", memory_format=torch.channels_last) for weight in weights)
    return all(weight.stride() == strides.stride() for weight, strides in zip(weights, wanted, strict=True))


def turn(convolutions: Iterable[nn.Module], way: torch.memory_format) -> None:
    """Lay their weights that way. Outside of inference mode, whose tensors could not learn."""
    with torch.inference_mode(mode=False):
        for module in convolutions:
            module.to(memory_format=way)


def takes(model: nn.Module, sample: Inputs) -> bool:
    """Whether the model can be asked."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            model(*sample)
    except RuntimeError:
        return False
    finally:
        for module in training:
            module.training = True
    return True


@contextmanager
def computing(model: nn.Module, sample: Inputs) -> Iterator[None]:
    """`channels_last` for a while."""
    turned = channels_last(model, sample)
    try:
        yield
    finally:
        turn(turned, torch.contiguous_format)
