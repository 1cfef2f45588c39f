"""Layer: whole blocks of a stack of equal ones go, so the model becomes shallower, and faster wherever depth is what takes time.

A. Fan et al., Reducing Transformer Depth on Demand, 2020, https://arxiv.org/abs/1909.11556; X. Men et al., ShortGPT, 2024,
https://arxiv.org/abs/2403.03853. A block can go when it hands on what it is given in the same shape, and stands beside a block of the
same class and weights: the layers of a transformer, the residual blocks of one stage of a ResNet. A stack keeps one at least.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_jobs.importances import Evidence, Part
from kompress_jobs.modules.structure import Change, run_watched
from kompress_jobs.pruning.selection import Cut, build_layer
from kompress_jobs.pruning.structural import Loss, Structural
from kompress_jobs.samples import Inputs

RANKS = ("block", "without")


class Pruner(Structural):
    """Removes blocks of a model. A layer of the selection is a stack, its units are blocks."""

    granularity = "Layer"
    units = "blocks"
    trial_ratios = ()
    """Every block is tried by itself."""

    def find_layers(self) -> None:
        """Stacks of equal blocks."""
        found = stacks_of(self.model, self.sample, self._left_alone)
        self.stacks = {name: (stack.modules, stack.positions) for name, stack in found.items()}
        """Name of the stack -> the list of modules, and the positions in it of the blocks that are left."""
        self.layers += [build_layer(name, len(stack.positions), stack.kind, self.spec) for name, stack in found.items()]

    def _left_alone(self, name: str) -> bool:
        if self.is_ignored(name):
            self.untouched[name] = "ignored"
        return self.is_ignored(name) or self.head == name or self.head.startswith(f"{name}.")

    def worths(self, loss: Loss | None = None) -> dict[str, torch.Tensor]:
        """See `Structural`."""
        found = {}
        for stack, (name, positions) in self.stacks.items():
            blocks = list(self.model.get_submodule(name).children())
            if self.importance.EVIDENCE is Evidence.LOSS:
                assert loss is not None
                worth = [self.importance.without(loss(self.trial({stack: torch.tensor([unit])}))) for unit in range(len(positions))]
            else:
                worth = [self.importance.block(_parts(blocks[position])) for position in positions]
            found[stack] = torch.tensor(worth, dtype=torch.float64)
        return found

    def describe(self, cut: Cut) -> list[Any]:
        """[list of modules, positions in it as it is now]; stacks of one list go together, for positions move when blocks go."""
        found: dict[str, list[int]] = {}
        for stack, units in cut.items():
            name, positions = self.stacks[stack]
            found.setdefault(name, []).extend(positions[unit] for unit in units.tolist())
        return [[name, sorted(positions)] for name, positions in found.items()]

    def remove(self, cut: Cut) -> list[Any]:
        """See `Structural`."""
        steps = self.describe(cut)
        self.redo(self.model, steps)
        return steps

    def redo(self, model: nn.Module, steps: list[Any]) -> None:
        """See `Structural`."""
        for name, positions in steps:
            _remove(model, name, positions)
            if model is self.model:
                for stack, (own, left) in self.stacks.items():
                    if own == name:
                        self.stacks[stack] = name, [p - sum(gone < p for gone in positions) for p in left if p not in positions]

    def lost(self, steps: list[Any]) -> dict[str, int]:
        """See `Structural`."""
        sizes = {layer.name: layer.size for layer in self.layers}
        return {stack: sizes[stack] - len(left) for stack, (_, left) in self.stacks.items()}


@dataclass(frozen=True)
class Stack:
    """Blocks that can stand for each other."""

    modules: str
    """Name of the list of modules that holds them."""
    positions: list[int]
    """Where in that list they are."""
    kind: str
    """What they have in common."""


def stacks_of(model: nn.Module, sample: Inputs, left_alone: Callable[[str], bool] = lambda _: False) -> dict[str, Stack]:
    """Every stack of two blocks or more, by name; `left_alone` says of a block's name that it belongs to none."""
    keeps = keeping_shape(model, sample)
    found: dict[str, Stack] = {}
    inside: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Sequential | nn.ModuleList) or any(name.startswith(f"{outer}.") for outer in inside):
            continue
        alike: dict[str, list[int]] = {}
        for position, (own, block) in enumerate(module.named_children()):
            full = f"{name}.{own}" if name else own
            if full in keeps and list(block.children()) and list(block.parameters()) and not left_alone(full):
                alike.setdefault(_kind(block), []).append(position)
        for kind, positions in alike.items():
            if len(positions) > 1:
                found[name if len(alike) == 1 else f"{name}[{positions[0]}-{positions[-1]}]"] = Stack(name, positions, kind)
                inside.append(name)
    return found


def keep(model: nn.Module, sample: Inputs, blocks: Sequence[int], *, field: str) -> Change:
    """Remove all blocks of the longest stack but these, which count from 0, in place; returns the change for the bundle's history.

    Raises MethodRefused for a model without such a stack, and for a number that none of its blocks has.
    """
    stacks = stacks_of(model, sample)
    if not stacks:
        raise MethodRefused("the model has no stack of equal blocks that could be shortened", hint="give a smaller student", field=field)
    name, stack = max(stacks.items(), key=lambda entry: len(entry[1].positions))
    count = len(stack.positions)
    if strange := [number for number in blocks if number >= count]:
        raise MethodRefused(f"{name} has no block {strange[0]}", hint=f"its {count} blocks are 0 to {count - 1}", field=field)
    gone = [position for number, position in enumerate(stack.positions) if number not in blocks]
    _remove(model, stack.modules, gone)
    return {"change": "prune", "granularity": Pruner.granularity, "steps": [[stack.modules, gone]]}


def keeping_shape(model: nn.Module, sample: Inputs) -> set[str]:
    """Names of modules that run once and give what has the shape of what they were given first."""
    found: set[str] = set()
    ran: dict[str, int] = {}

    def look(name: str, given: Any, gave: Any) -> None:
        ran[name] = ran.get(name, 0) + 1
        first = gave[0] if isinstance(gave, tuple) and gave else gave
        if given and isinstance(given[0], torch.Tensor) and isinstance(first, torch.Tensor) and given[0].shape == first.shape:
            found.add(name)

    run_watched(model, sample, {name: lambda _, given, gave, name=name: look(name, given, gave) for name, _ in model.named_modules()})
    return {name for name in found if ran[name] == 1}


def _kind(block: nn.Module) -> str:
    """What blocks must share to stand for each other."""
    return f"{type(block).__name__} {[(name, tuple(tensor.shape)) for name, tensor in block.state_dict().items()]}"


def _parts(block: nn.Module) -> list[Part]:
    return [
        Part(block, weight.detach().reshape(1, -1), (torch.zeros_like(weight) if weight.grad is None else weight.grad).reshape(1, -1))
        for weight in block.parameters()
    ]


def replay(model: nn.Module, change: Change, sample: Inputs) -> nn.Module:
    """Remove the same blocks from a freshly built model, in place."""
    for name, positions in change["steps"]:
        _remove(model, name, positions)
    return model


def _remove(model: nn.Module, name: str, positions: list[int]) -> None:
    modules = model.get_submodule(name)
    assert isinstance(modules, nn.Sequential | nn.ModuleList)
    for position in sorted(positions, reverse=True):
        del modules[position]
