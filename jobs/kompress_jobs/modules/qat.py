"""Quantization-aware training: weights and inputs of convolutions and linear layers are rounded in the forward pass, and gradients pass
straight through (B. Jacob et al., 2018, https://arxiv.org/abs/1712.05877; Y. Bengio et al., 2013, https://arxiv.org/abs/1308.3432).

The grid is ONNX Runtime's, and nearly OpenVINO's: weights signed bytes, symmetric, one scale a channel; inputs unsigned bytes, their
range a moving average. After training the rounding is taken away again; the weights have learned to bear it.
"""

import torch
from torch import nn
from torch.nn.utils import parametrize

from kompress_jobs.modules.structure import is_within

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
MOMENTUM = 0.05
"""Share of a new batch in the moving range."""


class RoundedWeight(nn.Module):
    """A weight (channels, ...) on its grid."""

    def __init__(self, *, per_channel: bool) -> None:
        super().__init__()
        self.per_channel = per_channel

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        largest = weight.detach().abs().flatten(1).amax(1) if self.per_channel else weight.detach().abs().amax().expand(len(weight))
        scale = (largest / 127).clamp(min=1e-8)
        return torch.fake_quantize_per_channel_affine(weight, scale, torch.zeros_like(scale, dtype=torch.int32), 0, -127, 127)


class RoundedInput(nn.Module):
    """A layer's input on its grid."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))
        self.low: torch.Tensor
        self.high: torch.Tensor

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.training:
            self._follow(values.detach().aminmax())
        scale = ((self.high - self.low) / 255).clamp(min=1e-8)
        zero = (-self.low / scale).round().clamp(0, 255).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, 255)

    @torch.no_grad()
    def _follow(self, found: tuple[torch.Tensor, torch.Tensor]) -> None:
        low, high = found[0].clamp(max=0), found[1].clamp(min=0)
        first = (self.high == self.low).float()
        share = first + (1 - first) * MOMENTUM
        self.low.lerp_(low, share)
        self.high.lerp_(high, share)


def prepare(model: nn.Module, ignore: list[str], *, per_channel: bool) -> list[str]:
    """Let layers round, in place; returns their names."""
    names = [name for name, module in model.named_modules() if isinstance(module, LAYERS) and not is_within(name, ignore)]
    for name in names:
        layer = model.get_submodule(name)
        parametrize.register_parametrization(layer, "weight", RoundedWeight(per_channel=per_channel))
        layer.rounded_input = RoundedInput().to(next(layer.parameters()).device)
        layer.rounding = layer.register_forward_pre_hook(lambda module, inputs: (module.rounded_input(inputs[0]), *inputs[1:]))  # type: ignore[assignment]
    return names


def remove(model: nn.Module, names: list[str]) -> None:
    """Take the rounding away; the weights stay as they were learned, unrounded."""
    for name in names:
        layer = model.get_submodule(name)
        layer.rounding.remove()  # type: ignore[operator, union-attr]
        del layer.rounding, layer.rounded_input
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
