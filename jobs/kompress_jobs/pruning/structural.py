"""What channel, head and layer pruning share: choose units, remove them, remember it so that it can be done again.

A granularity says which layers there are, what their units are worth, and how units are removed from a model. The rest is here:
limits, scopes, trials on copies, bounds, the history, and why each layer was cut or was not.
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
from kompress_jobs.pruning.selection import Choice, Cut, Layer, choose, extremes
from kompress_jobs.samples import Inputs

Loss = Callable[[nn.Module], float]


class Structural(ABC):
    """Removes units of a model in place, a step at a time.

    `sample` are inputs for tracing, `head` the layer of the outputs, which is left alone.
    """

    granularity: ClassVar[str]
    """Its name in the API."""
    units: ClassVar[str]
    """What goes, in the plural."""
    trial_ratios: ClassVar[tuple[float, ...]] = (0.25, 0.5, 0.75)
    """Shares of a layer that a sensitivity report cuts."""

    def __init__(self, model: nn.Module, sample: Inputs, importance: ModuleType, spec: Prune, head: str, *, field: str) -> None:
        self.model, self.sample, self.importance, self.spec, self.head, self.field = model.eval(), sample, importance, spec, head, field
        self.layers: list[Layer] = []
        self.untouched: dict[str, str] = {}
        """Layers that can lose nothing, and why."""
        self.steps: list[Any] = []
        self.choice = Choice({}, {})
        """The last one."""
        self.find_layers()
        if not self.layers:
            why = "; ".join(f"{name}: {reason}" for name, reason in list(self.untouched.items())[:4])
            raise MethodRefused(
                f"the model has no {self.units} that could go{f' ({why})' if why else ''}",
                hint="use another granularity, or ignore fewer modules",
                field=f"{field}.granularity",
            )

    @abstractmethod
    def find_layers(self) -> None:
        """Fill `layers` and `untouched`; raises MethodRefused for a model that can't be read."""

    @abstractmethod
    def worths(self, loss: Loss | None = None) -> dict[str, torch.Tensor]:
        """Of every layer's units, (units,), by the gradients that the parameters hold now, or by `loss`, a collective."""

    @abstractmethod
    def remove(self, cut: Cut) -> list[Any]:
        """Remove units from `self.model`; returns what `redo` needs, as JSON."""

    @abstractmethod
    def redo(self, model: nn.Module, steps: list[Any]) -> None:
        """Do to a model like this one what `remove` said; `model` may be `self.model`."""

    def choose(self, worths: dict[str, torch.Tensor], ratio: float) -> Choice:
        """What is to go, so that `ratio` of what there was at first is gone."""
        return choose(self.layers, worths, ratio)

    def apply(self, choice: Choice) -> None:
        """Remove what was chosen. Raises MethodRefused for a model that does not run afterwards."""
        self.steps += self.remove(choice.cut)
        for layer in self.layers:
            layer.size -= len(choice.cut.get(layer.name, ()))
        self.choice = choice
        self.model.zero_grad(set_to_none=True)
        self.prove(self.model)

    def trial(self, cut: Cut) -> nn.Module:
        """A copy of the model without these units; the model stays as it is."""
        other = copy.deepcopy(self.model)
        self.redo(other, self.describe(cut))
        self.prove(other)
        return other

    def prove(self, model: nn.Module) -> None:
        """Raise MethodRefused when a model does not run with what is left."""
        try:
            with torch.no_grad():
                model.eval()(*self.sample)
        except Exception as error:
            raise MethodRefused(
                f"the model does not run without some of its {self.units}: {error}",
                hint="name the modules that must stay as they are in ignore, or use another granularity",
                field=f"{self.field}.granularity",
            ) from error

    @abstractmethod
    def describe(self, cut: Cut) -> list[Any]:
        """What `redo` needs, as JSON."""

    def alone(self, worths: dict[str, torch.Tensor], name: str, ratio: float) -> Cut:
        """The least worth of one layer, and of no other."""
        layer = next(layer for layer in self.layers if layer.name == name)
        count = min(round(layer.size * ratio), layer.removable)
        return {name: worths[name].flatten().cpu().argsort(stable=True)[:count].sort().values} if count else {}

    def at_most(self, low: float, high: float, steps: int) -> None:
        """Remove the most that a ratio up to `high` can cost each layer, whatever the weights: a model that no result is smaller than."""
        self.apply(self._first(extremes(self.layers, low, high, steps)[1]))

    def at_least(self, low: float, high: float, steps: int) -> None:
        """Remove the fewest that a ratio from `low` on can cost each layer: a model that no result is larger than."""
        self.apply(self._first(extremes(self.layers, low, high, steps)[0]))

    def _first(self, counts: dict[str, int]) -> Choice:
        return Choice({name: torch.arange(count) for name, count in counts.items() if count}, {})

    def hold(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: B027
        """Nothing: what is gone can't come back in training."""

    def change(self) -> Change:
        """All that was removed so far, for the bundle's history."""
        return {"change": "prune", "granularity": self.granularity, "steps": self.steps}

    def restore(self, change: Change) -> None:
        """Do again what `change` says."""
        self.redo(self.model, change["steps"])
        self.steps = list(change["steps"])
        for name, count in self.lost(change["steps"]).items():
            next(layer for layer in self.layers if layer.name == name).size -= count

    @abstractmethod
    def lost(self, steps: list[Any]) -> dict[str, int]:
        """Units that each layer lost to these steps."""

    def removed(self) -> dict[str, list[int]]:
        """Layer -> [units before, units now], where they differ."""
        return {layer.name: [layer.initial, layer.size] for layer in self.layers if layer.size != layer.initial}

    def refuse_untouched(self) -> None:
        """Raise MethodRefused when nothing was removed."""
        if not self.removed():
            raise MethodRefused(
                f"none of the {self.units} was removed: rounding and limits leave every layer as it is",
                hint="raise pruningRatio, lower roundTo, or ignore fewer modules",
                field=f"{self.field}.{'pruningRatio' if self.spec.pruning_ratio else 'search'}",
            )

    def explain(self, worths: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
        """Every layer, what it lost, and why that much; `worths` are those of the last choice."""
        told = [{"layer": layer.name, "before": layer.initial, "now": layer.size, "why": self._why(layer, worths)} for layer in self.layers]
        return told + [{"layer": name, "why": reason} for name, reason in self.untouched.items()]

    def _why(self, layer: Layer, worths: dict[str, torch.Tensor]) -> str:
        if layer.initial == layer.least:
            return f"{layer.initial} {self.units} are the least that roundTo and maxPruningRatio leave"
        if layer.size == layer.least:
            return f"cut to the least that roundTo and maxPruningRatio leave, {layer.least}"
        lowest, limit = float(worths[layer.name].min()), self.choice.thresholds.get(layer.scope)
        if layer.size == layer.initial:
            above = f"its least worth, {lowest:.3g}, is above {limit:.3g}, up to which {self.units} went" if limit is not None else ""
            return above or "nothing was due"
        return "the least worth of its scope went" + ("" if limit is None else f", up to {limit:.3g} in the last step")

    def is_ignored(self, name: str) -> bool:
        """Whether `ignore` names the module, or one that holds it."""
        return is_within(name, self.spec.ignore)
