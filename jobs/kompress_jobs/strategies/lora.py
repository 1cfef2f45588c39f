"""LoRA: linear layers learn an update of low rank beside their weight, which rests; the head learns as a whole.

E. J. Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021, https://arxiv.org/abs/2106.09685. Reference: RoBERTa base on
GLUE 86.4 by full fine-tuning, 87.2 by LoRA with 0.3 of its 125 million weights.

The update is added to the weight and not to the layer's output: so it works wherever a layer's weight is used (attention of PyTorch
never calls its output layer), and what is merged at the end is, bit by bit, the weight that was trained and evaluated.
"""

import math

import torch
from torch import nn
from torch.nn.utils import parametrize

from kompress_api.errors import MethodRefused
from kompress_api.stages.fine_tune import Lora
from kompress_jobs.chance import mix
from kompress_jobs.modules.structure import is_within
from kompress_jobs.strategies import Phase, Subject


class Update(nn.Module):
    """A weight (outputs, inputs) plus alpha / rank * up @ down; nothing at first."""

    def __init__(self, weight: torch.Tensor, settings: Lora) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.scale, self.dropout = settings.alpha / settings.rank, settings.dropout
        drawn = nn.init.kaiming_uniform_(torch.empty(settings.rank, inputs, dtype=weight.dtype), a=math.sqrt(5))
        self.down = nn.Parameter(drawn.to(weight.device))  # drawn on the CPU: the same on every device
        self.up = nn.Parameter(weight.new_zeros(outputs, settings.rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        heard = nn.functional.dropout(torch.ones_like(self.down[0]), self.dropout, self.training)
        with torch.autocast(weight.device.type, enabled=False):  # what is trained is what is merged
            return weight + self.scale * (self.up @ (self.down * heard))


def phases(subject: Subject) -> list[Phase]:
    """One phase, of the updates and the head."""
    settings = subject.settings.lora or Lora()
    head = subject.of_head(subject.free())
    names = targets(subject, settings)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(subject.seed, 6))  # the same on every rank
        for name in names:
            layer = subject.model.get_submodule(name)
            parametrize.register_parametrization(layer, "weight", Update(layer.weight, settings))  # type: ignore[arg-type]
    return [Phase(subject.settings.epochs, head.union(names_of_updates(subject.model)))]


def targets(subject: Subject, settings: Lora) -> list[str]:
    """Names of the linear layers that get an update. Raises MethodRefused when there are none, or one is too narrow."""
    linear = {
        name: module
        for name, module in subject.model.named_modules()
        if isinstance(module, nn.Linear) and isinstance(module.weight, nn.Parameter) and name != subject.head
    }
    found = [name for name in linear if is_within(name, settings.target_modules) and not is_within(name, subject.settings.frozen_modules)]
    if not found:
        known = f"it has {', '.join(list(linear)[:4])}" if linear else "it has none: use Partial or Full"
        raise MethodRefused(
            f"no linear layer but the head matches targetModules {settings.target_modules}", hint=known, field=f"{subject.field}.lora"
        )
    narrow = next((name for name in found if min(linear[name].weight.shape) < settings.rank), None)
    if narrow is not None:
        outputs, inputs = linear[narrow].weight.shape
        raise MethodRefused(
            f"rank {settings.rank} is no low rank for {narrow}, a matrix of {outputs}x{inputs}",
            hint=f"use a rank below {min(outputs, inputs)}, or leave the layer out of targetModules",
            field=f"{subject.field}.lora.rank",
        )
    return found


def names_of_updates(model: nn.Module) -> list[str]:
    """Parameters of the updates."""
    return [f"{name}.{own}" for name, module in model.named_modules() if isinstance(module, Update) for own, _ in module.named_parameters()]


def merge(model: nn.Module) -> None:
    """Add the updates to the weights, for good."""
    model.eval()  # without dropout
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight") and isinstance(module.parametrizations.weight[0], Update):  # type: ignore[index, union-attr]
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
