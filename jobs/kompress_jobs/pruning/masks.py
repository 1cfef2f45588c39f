"""What weight and 2:4 pruning share: zeros that stay zero. The model keeps its shape, its parameters and its MACs.

A weight that is zero is one that was pruned: so neither a checkpoint nor a bundle needs a mask beside the weights. An optimizer's step
may move it (momentum, weight decay of others' making), so zeros are put back after every step.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.stages.prune import Prune
from kompress_jobs.modules.structure import Change, is_within
from kompress_jobs.samples import Inputs

Worths = dict[str, torch.Tensor]
Masks = dict[str, torch.Tensor]
"""Layer -> which of its weights go, bool, like the weight."""


class Masked(ABC):
    """Sets weights of a model's convolutions and linear layers to zero, a step at a time; `head` is left alone."""

    granularity: ClassVar[str]
    trial_ratios: ClassVar[tuple[float, ...]] = (0.25, 0.5, 0.75)
    """Shares of a layer that a sensitivity report cuts."""

    def __init__(self, model: nn.Module, sample: Inputs, importance: ModuleType, spec: Prune, head: str, *, field: str) -> None:
        self.model, self.importance, self.spec, self.field = model, importance, spec, field
        self.weights: dict[str, nn.Parameter] = {}
        self.untouched: dict[str, str] = {}
        for name, module in model.named_modules():
            if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                continue
            if name == head:
                why = "the head"
            elif is_within(name, spec.ignore):
                why = "ignored"
            elif not isinstance(module.weight, nn.Parameter):
                why = "its weight is computed (weight norm)"
            else:
                why = self.unfit(module)
            if why:
                self.untouched[name] = why
            else:
                self.weights[name] = module.weight
        if not self.weights:
            why = "; ".join(f"{name}: {reason}" for name, reason in list(self.untouched.items())[:4])
            raise MethodRefused(
                f"no layer's weights can be pruned ({why or 'there is none'})",
                hint="use another granularity, or ignore fewer modules",
                field=f"{field}.granularity",
            )

    def unfit(self, module: nn.Module) -> str:
        """Why a layer can't be pruned; empty where it can."""
        return ""

    @abstractmethod
    def choose(self, worths: Worths, ratio: float) -> Masks:
        """Which weights go, so that `ratio` of all are zero."""

    def worths(self, loss: Callable[[nn.Module], float] | None = None) -> Worths:
        """Of every single weight, by the gradients that the parameters hold now. What is gone is worth least."""
        found = {}
        for name, weight in self.weights.items():
            evidence = torch.zeros_like(weight) if weight.grad is None else weight.grad
            worth = self.importance.weights(weight.detach(), evidence)
            found[name] = worth.masked_fill(weight.detach() == 0, -torch.inf)
        return found

    @torch.no_grad()
    def apply(self, masks: Masks) -> None:
        """Set to zero."""
        for name, mask in masks.items():
            self.weights[name].masked_fill_(mask.to(self.weights[name].device), 0)
        self.model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def trial(self, masks: Masks) -> nn.Module:
        """A copy of the model without these weights; the model stays as it is."""
        other = copy.deepcopy(self.model)
        for name, mask in masks.items():
            other.get_submodule(name).weight.masked_fill_(mask.to(self.weights[name].device), 0)  # type: ignore[union-attr, operator]
        return other

    @abstractmethod
    def alone(self, worths: Worths, name: str, ratio: float) -> Masks:
        """The least worth of one layer, and of no other."""

    def at_most(self, low: float, high: float, steps: int) -> None:  # noqa: B027
        """Zeros make nothing smaller."""

    at_least = at_most

    def hold(self, optimizer: torch.optim.Optimizer) -> None:
        """Put the zeros back after every step of the optimizer; call it when the weights are those that the training begins with."""
        held = [(weight, weight.detach() != 0) for weight in self.weights.values()]

        @torch.no_grad()
        def put_back(*_: object) -> None:
            torch._foreach_mul_([weight for weight, _ in held], [kept for _, kept in held])

        optimizer.register_step_post_hook(put_back)

    def zeros(self) -> dict[str, int]:
        """Of every layer."""
        return {name: int((weight.detach() == 0).sum()) for name, weight in self.weights.items()}

    def sparsity(self) -> float:
        """Share of zeros among the weights that could go."""
        return sum(self.zeros().values()) / sum(weight.numel() for weight in self.weights.values())

    def change(self) -> Change:
        """For the bundle's history: nothing need be done again."""
        return {"change": "prune", "granularity": self.granularity, "sparsity": self.sparsity()}

    def restore(self, change: Change) -> None:  # noqa: B027
        """The zeros come with the checkpoint's weights."""

    def removed(self) -> dict[str, list[int]]:
        """Layer -> [weights, weights that are not zero], where they differ."""
        zeros = self.zeros()
        return {name: [weight.numel(), weight.numel() - zeros[name]] for name, weight in self.weights.items() if zeros[name]}

    def refuse_untouched(self) -> None:
        """Raise MethodRefused when nothing was removed."""
        if not self.removed():
            raise MethodRefused("no weight became zero", hint="raise sparsity, or ignore fewer modules", field=f"{self.field}.sparsity")

    def explain(self, worths: Worths) -> list[dict[str, Any]]:
        """Every layer, what it lost, and why."""
        zeros = self.zeros()
        told: list[dict[str, Any]] = [
            {"layer": name, "before": weight.numel(), "now": weight.numel() - zeros[name], "why": self.why(name, zeros[name])}
            for name, weight in self.weights.items()
        ]
        return told + [{"layer": name, "why": reason} for name, reason in self.untouched.items()]

    @abstractmethod
    def why(self, name: str, zeros: int) -> str:
        """Why a layer has that many zeros."""
