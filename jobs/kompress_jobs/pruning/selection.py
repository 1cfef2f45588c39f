"""Which units of which layers go: a pure choice from their worths, and what can be said of it before the worths are known.

A unit is whatever the granularity removes: a weight, a channel, a head, a block. Layers of one scope are ranked together; the least
worth goes first, but no layer loses more than it may.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from kompress_api.stages.prune import Prune, Scope


@dataclass
class Layer:
    """Something that can lose units."""

    name: str
    scope: str
    initial: int
    """Units at first."""
    size: int
    """Units now."""
    least: int
    """Units that stay whatever happens; a multiple of `round_to` where the layer is larger than that."""
    round_to: int = 1
    """Units left are a multiple of this, once any has gone."""

    @property
    def removable(self) -> int:
        """Units that may still go."""
        return max(0, self.size - self.least)


Cut = dict[str, torch.Tensor]
"""Layer -> positions of the units that go, ascending, int64, counted among those that are there now."""


@dataclass(frozen=True)
class Choice:
    """What goes, and why no more."""

    cut: Cut
    thresholds: dict[str, float]
    """Scope -> the highest worth that goes. Scopes of which nothing goes are missing."""


def build_layer(name: str, units: int, shape: str, spec: Prune, round_to: int = 1) -> Layer:
    """A layer before anything has gone; `shape` says what it is alike to, for scope Isomorphic."""
    scope = {Scope.LOCAL: name, Scope.GLOBAL: "", Scope.ISOMORPHIC: shape}[spec.scope]
    least = math.ceil(max(1, units * (1 - spec.max_pruning_ratio) - 1e-9) / round_to) * round_to
    return Layer(name, scope, units, units, min(units, least), round_to)


def scopes(layers: Iterable[Layer]) -> Iterator[tuple[str, list[Layer]]]:
    """Layers that are ranked together."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        found.setdefault(layer.scope, []).append(layer)
    return iter(found.items())


def due(members: Sequence[Layer], ratio: float) -> int:
    """Units of a scope that are to go now, so that `ratio` of what there was at first is gone; rounding takes more."""
    kept = math.floor(sum(layer.initial for layer in members) * (1 - ratio) + 1e-9)
    return max(0, sum(layer.size for layer in members) - kept)


def choose(layers: Sequence[Layer], worths: Mapping[str, torch.Tensor], ratio: float) -> Choice:
    """The units of least worth, (units,) for each layer; equal ones in the order that they stand in."""
    cut: Cut = {}
    thresholds: dict[str, float] = {}
    for scope, members in scopes(layers):
        orders = [worths[layer.name].flatten().cpu().argsort(stable=True) for layer in members]
        candidates = [order[: layer.removable] for layer, order in zip(members, orders, strict=True)]
        values = torch.cat([worths[layer.name].flatten().cpu()[free] for layer, free in zip(members, candidates, strict=True)])
        count = min(due(members, ratio), len(values))
        if not count:
            continue
        first = values.argsort(stable=True)[:count]
        thresholds[scope] = float(values[first[-1]])
        owners = torch.repeat_interleave(torch.tensor([len(free) for free in candidates]))
        counts = owners[first].bincount(minlength=len(members)).tolist()
        for layer, order, taken in zip(members, orders, counts, strict=True):
            if taken:
                cut[layer.name] = order[: layer.size - rounded(layer, layer.size - taken)].sort().values
    return Choice(cut, thresholds)


def rounded(layer: Layer, kept: int) -> int:
    """Units that a layer keeps when only `kept` of them are worth it."""
    return max(kept - kept % layer.round_to, layer.least)


def extremes(layers: Sequence[Layer], low: float, high: float, steps: int) -> tuple[dict[str, int], dict[str, int]]:
    """The fewest and the most units that each layer can lose to a ratio between `low` and `high` in `steps` steps, whatever the worths.

    Fewest: the rest of the scope loses all that it may, and the layer what is then missing. Most: the layer loses all that is due, and
    to rounding, in each step, less than `round_to` more. A layer that is alone in its scope loses the same at every step's end, so for
    one ratio both are the same number.
    """
    fewest, most = {}, {}
    for _, members in scopes(layers):
        least_due, most_due = (min(due(members, ratio), sum(layer.removable for layer in members)) for ratio in (low, high))
        for layer in members:
            others = sum(layer.removable for layer in members) - layer.removable
            needed = max(0, least_due - others)
            fewest[layer.name] = layer.size - rounded(layer, layer.size - needed) if needed else 0
            if len(members) == 1:
                most[layer.name] = layer.size - rounded(layer, layer.size - most_due) if most_due else 0
            else:
                most[layer.name] = min(layer.removable, most_due + steps * (layer.round_to - 1)) if most_due else 0
    return fewest, most


def linear(ratio: float, steps: int) -> list[float]:
    """Ratio after 0, 1, ..., `steps` steps, growing evenly."""
    return [ratio * step / steps for step in range(steps + 1)]


def cubic(ratio: float, steps: int) -> list[float]:
    """Fast at first, slow at last (M. Zhu, S. Gupta, 2017, https://arxiv.org/abs/1710.01878)."""
    return [ratio * (1 - (1 - step / steps) ** 3) for step in range(steps + 1)]


SCHEDULES = {"Linear": linear, "Cubic": cubic}
