"""Head: whole heads of attention layers go, with their rows of query, key and value and their columns of the output.

P. Michel et al., Are Sixteen Heads Really Better than One?, 2019, https://arxiv.org/abs/1905.10650.
Heads of one layer are alike, so nothing need be traced; `pruning/attention.py` knows the layers. A layer keeps one head at least.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kompress_jobs.importances import Part
from kompress_jobs.modules.structure import Change
from kompress_jobs.pruning import attention
from kompress_jobs.pruning.attention import Attention
from kompress_jobs.pruning.selection import Cut, build_layer
from kompress_jobs.pruning.structural import Loss, Structural
from kompress_jobs.samples import Inputs

RANKS = ("units",)


class Pruner(Structural):
    """Removes heads of a model."""

    granularity = "Head"
    units = "heads"

    def find_layers(self) -> None:
        """Attention layers."""
        found, self.untouched = attention.find(self.model)
        self.attentions: dict[str, Attention] = {}
        for attending in found:
            if self.is_ignored(attending.name):
                self.untouched[attending.name] = "ignored"
            elif self.importance.units(parts(self.model, attending)) is None:
                self.untouched[attending.name] = f"importance {self.spec.importance} says nothing of it"
            else:
                self.attentions[attending.name] = attending
                width = self.model.get_submodule(attending.output).in_features
                self.layers.append(build_layer(attending.name, attending.heads, f"{attending.heads} of {width}", self.spec))

    def worths(self, loss: Loss | None = None) -> dict[str, torch.Tensor]:
        """See `Structural`."""
        return {name: self.importance.units(parts(self.model, attending)) for name, attending in self.attentions.items()}

    def describe(self, cut: Cut) -> list[Any]:
        """[attention layer, heads]."""
        return [[name, heads.tolist()] for name, heads in cut.items()]

    def remove(self, cut: Cut) -> list[Any]:
        """See `Structural`."""
        steps = self.describe(cut)
        _remove(self.model, steps)
        return steps

    def redo(self, model: nn.Module, steps: list[Any]) -> None:
        """See `Structural`."""
        _remove(model, steps)

    def lost(self, steps: list[Any]) -> dict[str, int]:
        """See `Structural`."""
        found: dict[str, int] = {}
        for name, heads in steps:
            found[name] = found.get(name, 0) + len(heads)
        return found


def parts(model: nn.Module, attending: Attention) -> Sequence[Part]:
    """The weights that go with each head."""
    heads, found = attending.heads, []
    for layer, times in attending.rows():
        for turn in range(times):
            found.append(Part(layer, *(part.chunk(times)[turn].reshape(heads, -1) for part in _with_evidence(layer))))
    joined = model.get_submodule(attending.output)
    return [*found, Part(joined, *(part.T.reshape(heads, -1) for part in _with_evidence(joined)))]


def _with_evidence(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    weight = layer.weight
    return weight.detach(), torch.zeros_like(weight) if weight.grad is None else weight.grad


def replay(model: nn.Module, change: Change, sample: Inputs) -> nn.Module:
    """Remove the same heads from a freshly built model, in place."""
    _remove(model, change["steps"])
    return model


def _remove(model: nn.Module, steps: list[Any]) -> None:
    known = {attending.name: attending for attending in attention.find(model)[0]}
    for name, heads in steps:
        attention.remove_heads(model, known[name], heads)
