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
    """Dropout before the adapter."""
    target_modules: TrainableGlobs = ["*"]
    """Globs of linear layers that get an adapter."""


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
    """Partial: epochs between unfreezing one block and the next, from the head down; absent: all at once."""
    head: Literal["Auto", "Keep", "Replace"] = "Auto"
    """Auto: replaced when its size is not that of the labels."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from one block to the one below; 1: none."""
    linear_probe_epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """LPFT: epochs of the head alone; absent: a third of `epochs`, at least 1."""
    lora: Lora | None = None
    """Adapters of strategy LoRA; absent: its defaults."""

    rules = (
        Rule(
            cel="self.strategy != 'Partial' || (has(self.trainableModules) && size(self.trainableModules) > 0)",
            holds=lambda f: f.strategy is not Strategy.PARTIAL or bool(f.trainable_modules),
            message="strategy Partial needs trainableModules: globs of the parameters that learn",
            field="trainableModules",
        ),
    )
