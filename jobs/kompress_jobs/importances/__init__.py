"""How the worth of what could go is estimated: the least worth goes first. The importance's name is the module.

A module says in `EVIDENCE` what must be known of the loss, and has a function for each kind of thing that it can rank:

    weights(weight, evidence) -> tensor of the same shape    single weights: granularities Weight and NM
    units(parts) -> (units,), or None                        channels or heads of coupled layers: Channel and Head
    block(parts) -> float                                    a whole layer of the model: Layer
    without(loss) -> float                                   the same, from the loss of the model that lacks it

What it has no function for is refused by the preflight; None is said of a group that it can't rank, which then stays as it is.
To add one: its name in `Importance` (`kompress_api/stages/prune.py`), a copy of `taylor.py` under that name, its paper in the
docstring; its entry in `WORKS` of `tests/unit/jobs/engine/test_importances.py`, which takes it through every granularity; its line below
`examples/methods/`, and `make crds`. Random numbers come from torch's default
generator, which the stage seeds.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import nn

TINY = 1e-30


class Evidence(StrEnum):
    """What is collected over `calibrationBatches` before every cut."""

    NONE = "None"
    GRADIENT = "Gradient"
    """Of the mean loss, summed over the batches."""
    SQUARES = "Squares"
    """Mean of the squared gradients of single samples."""
    LOSS = "Loss"
    """The loss itself, of models that lack something."""


class Part(NamedTuple):
    """The weights of one layer that go with the units of a group, a row a unit."""

    layer: nn.Module
    weight: torch.Tensor
    """(units, weights of a unit)."""
    evidence: torch.Tensor
    """Like `weight`; zeros where nothing was collected."""


def combined(parts: Sequence[Part], weights: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Worth of units from that of their weights, (units,): summed over a unit, averaged over the coupled layers, and divided by the
    group's mean, so that groups compare (G. Fang et al., DepGraph, 2023, https://arxiv.org/abs/2301.12900)."""
    found = torch.stack([weights(part.weight, part.evidence).sum(1) for part in parts]).mean(0)
    return found / found.abs().mean().clamp(min=TINY)


def total(parts: Sequence[Part], weights: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
    """Worth of a whole layer: that of all its weights together."""
    return float(sum(weights(part.weight, part.evidence).double().sum() for part in parts))
