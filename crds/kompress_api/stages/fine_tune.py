"""fineTune: adapt a model to the task's data."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from kompress_api.base import Model, Rule
from kompress_api.training import Epochs, TrainableGlobs, Training


class Strategy(StrEnum):
    """Which weights learn, and in what order."""

    FEATURE_EXTRACTION = "FeatureExtraction"
    PARTIAL = "Partial"
    FULL = "Full"
    LPFT = "LPFT"
    LORA = "LoRA"


class Lora(Model):
    """Low-rank adapters (Hu et al., 2021), merged into the weights at the end."""

    rank: Annotated[int, Field(ge=1, le=4096)] = 8
    """Rank r of the update."""
    alpha: Annotated[float, Field(gt=0, le=65_536)] = 16.0
    """The update is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a layer's inputs that its adapter does not see, drawn anew for every batch."""
    target_modules: TrainableGlobs = ["*"]
    """Globs of linear layers that get an adapter; the head learns as a whole."""


OWN = (
    (Strategy.PARTIAL, "trainableModules", "has(self.trainableModules) && size(self.trainableModules) > 0"),
    (Strategy.PARTIAL, "gradualUnfreezingEpochs", "has(self.gradualUnfreezingEpochs)"),
    (Strategy.LPFT, "linearProbeEpochs", "has(self.linearProbeEpochs)"),
    (Strategy.LORA, "lora", "has(self.lora)"),
)
"""Fields that one strategy alone reads, and CEL for whether they are given."""


def only_for(strategy: Strategy, name: str, given: str) -> Rule:
    """A field that would be ignored by other strategies is refused there."""
    return Rule(
        cel=f"self.strategy == '{strategy}' || !({given})",
        holds=lambda f: f.strategy is strategy or not f.dump().get(name),
        message=f"{name} is for strategy {strategy} alone",
        field=name,
    )


class FineTune(Training):
    """Adapt a model to the task's data."""

    strategy: Strategy = Strategy.FULL
    """FeatureExtraction: the head alone; Partial: `trainableModules`; Full: everything; LPFT: the head first, then everything
    (Kumar et al., 2022); LoRA: low-rank adapters."""
    epochs: Epochs
    """Passes over the training split."""
    trainable_modules: TrainableGlobs = []
    """Globs of parameters that learn (Partial)."""
    frozen_modules: TrainableGlobs = []
    """Globs of parameters that never learn."""
    gradual_unfreezing_epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Partial: epochs between unfreezing one block and the next, from the head down (Howard and Ruder, 2018), each with a schedule of its
    own; absent: all at once."""
    head: Literal["Auto", "Keep", "Replace"] = "Auto"
    """Auto: replaced when its size is not that of the labels."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from one block to the one below; 1: none."""
    linear_probe_epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """LPFT: epochs of the head alone, out of `epochs`; absent: a third, at least 1."""
    lora: Lora | None = None
    """Adapters of strategy LoRA; absent: its defaults."""

    rules = (
        Rule(
            cel="self.strategy != 'Partial' || (has(self.trainableModules) && size(self.trainableModules) > 0)",
            holds=lambda f: f.strategy is not Strategy.PARTIAL or bool(f.trainable_modules),
            message="strategy Partial needs trainableModules: globs of the parameters that learn",
            field="trainableModules",
        ),
        *(only_for(*entry) for entry in OWN),
        Rule(
            cel="self.strategy != 'LPFT' || self.epochs > (has(self.linearProbeEpochs) ? self.linearProbeEpochs : 1)",
            holds=lambda f: f.strategy is not Strategy.LPFT or f.epochs > (f.linear_probe_epochs or 1),
            message="strategy LPFT needs more epochs than those of the head alone (linearProbeEpochs, at least 1)",
            field="epochs",
        ),
    )
