"""Channel: whole channels go, with everything in other layers that is coupled to them, so the model is really smaller.

G. Fang et al., DepGraph: Towards Any Structural Pruning, 2023, https://arxiv.org/abs/2301.12900, as Torch-Pruning has it.
What was removed is kept as Torch-Pruning's history (root layer, direction, indices) and replayed when a bundle is read.
Attention is left whole, and with it the width that all its blocks share; of a transformer the hidden widths of its MLPs go.
"""

import math
from typing import Any

import torch
from torch import nn

from kompress_jobs.modules.structure import Change
from kompress_jobs.pruning import attention, coupled
from kompress_jobs.pruning.selection import Cut, build_layer
from kompress_jobs.pruning.structural import Loss, Structural
from kompress_jobs.samples import Inputs

RANKS = ("units",)


class Pruner(Structural):
    """Removes channels of a model."""

    granularity = "Channel"
    units = "channels"

    def find_layers(self) -> None:
        """Groups of coupled channels, by the layer that Torch-Pruning starts them from."""
        self.graph = coupled.build_graph(self.model, self.sample, field=self.field)
        self.copies: dict[str, int] = {}
        names = {module: name for name, module in self.model.named_modules()}
        self.ignored = self._ignored(names)
        for group in coupled.groups(self.graph, list(self.ignored)):
            name = names[group[0].dep.target.module]
            copies = coupled.copies(self.graph, group)
            if self.importance.units(coupled.parts(self.graph, group)) is None:
                self.untouched[name] = f"importance {self.spec.importance} says nothing of it"
                continue
            self.copies[name] = copies
            shape = "|".join(f"{type(dep.source.module).__name__}>{type(dep.target.module).__name__}" for dep, _ in group)
            round_to = self.spec.round_to // math.gcd(self.spec.round_to, copies)  # a multiple of roundTo over all equal groups
            self.layers.append(build_layer(name, len(group[0].idxs) // copies, shape, self.spec, round_to))
        known = self.copies.keys() | self.untouched.keys()
        reasons = {names[module]: reason for module, reason in self.ignored.items() if hasattr(module, "weight") and module in names}
        self.untouched |= {name: reason for name, reason in reasons.items() if name not in known}

    def _ignored(self, names: dict[nn.Module, str]) -> dict[nn.Module, str]:
        """Modules that are left alone, and why."""
        found: dict[nn.Module, str] = {}
        for attending in attention.find(self.model)[0]:
            found[self.model.get_submodule(attending.output)] = "joins the heads of an attention layer"
        for module in attention.layers(self.model).values():
            found |= dict.fromkeys(module.modules(), "part of an attention layer")
        for module, name in names.items():
            if isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and not isinstance(module.weight, nn.Parameter):
                found[module] = "its weight is computed (weight norm)"
            if self.is_ignored(name):
                found[module] = "ignored"
        if self.head in names.values():
            found |= dict.fromkeys(self.model.get_submodule(self.head).modules(), "the head")
        return found

    def worths(self, loss: Loss | None = None) -> dict[str, torch.Tensor]:
        """See `Structural`."""
        names = {module: name for name, module in self.model.named_modules()}
        found = {}
        for group in coupled.groups(self.graph, list(self.ignored)):
            name = names[group[0].dep.target.module]
            if name in self.copies:
                found[name] = self.importance.units(coupled.parts(self.graph, group)).view(self.copies[name], -1).mean(0)
        return found

    def describe(self, cut: Cut) -> list[Any]:
        """[root layer, outward, channels]: a channel stands once in each of its equal groups."""
        sizes = {layer.name: layer.size for layer in self.layers}
        return [
            [name, True, [turn * sizes[name] + unit for turn in range(self.copies[name]) for unit in units.tolist()]]
            for name, units in cut.items()
        ]

    def remove(self, cut: Cut) -> list[Any]:
        """See `Structural`."""
        steps = self.describe(cut)
        _prune(self.graph, steps)
        return steps

    def redo(self, model: nn.Module, steps: list[Any]) -> None:
        """See `Structural`."""
        _prune(self.graph if model is self.model else coupled.build_graph(model, self.sample, field=self.field), steps)

    def lost(self, steps: list[Any]) -> dict[str, int]:
        """See `Structural`."""
        found: dict[str, int] = {}
        for name, _, channels in steps:
            found[name] = found.get(name, 0) + len(channels) // self.copies[name]
        return found


def replay(model: nn.Module, change: Change, sample: Inputs) -> nn.Module:
    """Remove the same channels from a freshly built model, in place."""
    _prune(coupled.build_graph(model, sample, field="bundle.json: history"), change["steps"])
    return model


def _prune(graph: Any, steps: list[Any]) -> None:
    graph.load_pruning_history([tuple(step) for step in steps])
