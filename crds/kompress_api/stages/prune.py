"""prune: remove weights, channels, heads or layers."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from kompress_api.base import Model, Rule
from kompress_api.names import Glob
from kompress_api.training import Epochs, Training


class Granularity(StrEnum):
    """What is removed."""

    WEIGHT = "Weight"
    NM = "NM"
    CHANNEL = "Channel"
    HEAD = "Head"
    LAYER = "Layer"


class Importance(StrEnum):
    """How the worth of a group is estimated."""

    L1 = "L1"
    L2 = "L2"
    BN_SCALE = "BNScale"
    FPGM = "FPGM"
    LAMP = "LAMP"
    TAYLOR = "Taylor"
    HESSIAN = "Hessian"
    RANDOM = "Random"
    MOVEMENT = "Movement"
    LOSS = "Loss"


class Scope(StrEnum):
    """Among which groups the least important are chosen."""

    LOCAL = "Local"
    GLOBAL = "Global"
    ISOMORPHIC = "Isomorphic"


class Recovery(Training):
    """Training after each pruning step."""

    epochs: Epochs
    """Passes over the training split, shared out over the iterative steps; the last gets at least half."""


class Constraints(Model):
    """Budgets in place of a ratio: pruning goes on until all hold."""

    params: Annotated[int, Field(ge=1)] | None = None
    """Most parameters."""
    macs: Annotated[int, Field(ge=1)] | None = None
    """Most multiply-accumulates for one sample."""
    latency_ms: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Highest p50 latency of eager PyTorch at batch 1 on the CPU of the machine that the stage runs on, milliseconds."""


class Search(Model):
    """The smallest model within an accuracy budget."""

    max_degradation: Annotated[float, Field(gt=0, le=1)]
    """Loss of validation accuracy (of speech-recognition: rise of the word error rate) that is allowed, as a fraction of 1."""
    max_trials: Annotated[int, Field(ge=2, le=1000)] = 8
    """Models that are tried, each after a quarter of recovery's epochs; the chosen ratio gets all of them."""


class Prune(Model):
    """Remove weights, channels, heads or layers, with training in between."""

    granularity: Granularity = Granularity.CHANNEL
    """What is removed."""
    importance: Importance = Importance.TAYLOR
    """How the worth of a group is estimated."""
    scope: Scope = Scope.GLOBAL
    """Local: in each layer alike; Global: over the whole model; Isomorphic: among groups of one shape (Fang et al., 2024)."""
    pruning_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of channels, heads or layers to remove. Of channels about 1 - (1 - p)^2 of the parameters go."""
    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of zeros (granularity Weight)."""
    pattern: Literal["2:4"] | None = None
    """Pattern of granularity NM."""
    max_pruning_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Most that any one layer may lose."""
    iterative_steps: Annotated[int, Field(ge=1, le=1000)] = 1
    """Pruning is done in this many steps with recovery in between."""
    schedule: Literal["Linear", "Cubic"] = "Linear"
    """How the ratio grows over the steps (Cubic: Zhu and Gupta, 2017)."""
    round_to: Annotated[int, Field(ge=1, le=1024)] = 8
    """Channels left are a multiple of this, so that kernels are fast; heads and layers go one by one."""
    ignore: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs of modules that are left alone, with all that they hold; the head always is."""
    constraints: Constraints | None = None
    """Budgets in place of a ratio."""
    search: Search | None = None
    """The smallest model within an accuracy budget, in place of a ratio."""
    sensitivity: bool = False
    """Measure per layer what a cut costs, and report it."""
    calibration_batches: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Batches from train for importances that look at the loss."""
    recovery: Recovery | None = None
    """Training after each step; absent: none."""

    rules = (
        Rule(
            cel="[has(self.pruningRatio), has(self.sparsity), has(self.pattern), has(self.constraints), has(self.search)]"
            ".filter(x, x).size() == 1",
            holds=lambda p: sum(v is not None for v in (p.pruning_ratio, p.sparsity, p.pattern, p.constraints, p.search)) == 1,
            message="give exactly one of pruningRatio, sparsity, pattern, constraints, search",
        ),
        Rule(
            cel="(has(self.sparsity) == (self.granularity == 'Weight')) && (has(self.pattern) == (self.granularity == 'NM'))",
            holds=lambda p: (
                (p.sparsity is not None) == (p.granularity is Granularity.WEIGHT)
                and (p.pattern is not None) == (p.granularity is Granularity.NM)
            ),
            message="sparsity belongs to granularity Weight, pattern to NM; the others take pruningRatio, constraints or search",
        ),
    )
