"""quantize: fewer bits, by the target engine's own quantizer."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from kompress_api.base import Model, Rule
from kompress_api.names import Glob
from kompress_api.stages.export import Target
from kompress_api.training import Epochs, Training


class QuantizeMode(StrEnum):
    """When the ranges are found."""

    DYNAMIC = "Dynamic"
    STATIC = "Static"
    WEIGHT_ONLY = "WeightOnly"
    QAT = "QAT"


class Scheme(StrEnum):
    """Bits of weights (W) and activations (A)."""

    W8A8 = "W8A8"
    W8A16 = "W8A16"
    W4A16 = "W4A16"
    FP8 = "FP8"


class Calibration(Model):
    """Samples from train that fix the ranges of activations."""

    num_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Samples."""
    method: Literal["MinMax", "Entropy", "Percentile"] = "MinMax"
    """How a range follows from what was seen."""


class QuantizationAwareTraining(Training):
    """Training with rounding in the loop."""

    epochs: Epochs
    """Passes over the training split."""


class Quantize(Model):
    """Fewer bits for weights and activations. The recipe is kept in the bundle; `export` lowers with the target's quantizer."""

    mode: QuantizeMode = QuantizeMode.STATIC
    """Dynamic: activation ranges at run time; Static: from calibration; WeightOnly: weights alone; QAT: learned."""
    scheme: Scheme = Scheme.W8A8
    """Bits."""
    per_channel: bool = True
    """One scale a channel rather than a tensor."""
    ignore: Annotated[list[Glob], Field(max_length=64)] = []
    """Globs of modules that keep their precision."""
    calibration: Calibration = Calibration()
    """Samples for mode Static."""
    sensitivity: bool = False
    """Measure per layer what quantizing it alone costs, and report it."""
    target: Target | None = None
    """Engine that accuracy and latency are measured on; absent: one CPU thread."""
    training: QuantizationAwareTraining | None = None
    """Training of mode QAT."""

    rules = (
        Rule(
            cel="has(self.training) == (self.mode == 'QAT')",
            holds=lambda q: (q.training is not None) == (q.mode is QuantizeMode.QAT),
            message="mode QAT needs training, and only QAT takes it",
            field="training",
        ),
    )
