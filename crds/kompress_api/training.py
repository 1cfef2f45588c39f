"""What every stage that trains can be told: one block for fineTune, distill, prune's recovery, quantization-aware training."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from kompress_api.base import Model
from kompress_api.names import Glob

Fraction = Annotated[float, Field(ge=0, le=1)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]


class Precision(StrEnum):
    """Arithmetic of the forward and backward pass (torch.autocast)."""

    FP32 = "FP32"
    BF16 = "BF16"
    FP16 = "FP16"


class Optimizer(StrEnum):
    """torch.optim."""

    ADAMW = "AdamW"
    ADAM = "Adam"
    SGD = "SGD"


class Schedule(StrEnum):
    """Learning rate over the steps, after a linear warm-up."""

    COSINE = "Cosine"
    LINEAR = "Linear"
    CONSTANT = "Constant"


class Parallelism(StrEnum):
    """How the model is spread over the processes."""

    DDP = "DDP"
    FSDP2 = "FSDP2"


class Regularizer(StrEnum):
    """Penalties on the weights."""

    L2 = "L2"
    L2SP = "L2SP"


class WeightedRegularizer(Model):
    """A penalty added to the task's loss."""

    type: Regularizer
    """L2: half the sum of squared weights; L2SP: half the squared distance to where training began, of a fresh head to zero
    (Li et al., 2018). Not of biases and norms."""
    weight: Annotated[float, Field(gt=0, le=1e6)]
    """Factor of the penalty."""


class Ema(Model):
    """Exponential moving average of the weights, used for evaluation and kept as the result."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Share of the old average that is kept at each step."""


class EarlyStopping(Model):
    """Stop when validation stops getting better; the best weights are kept."""

    metric: Literal["accuracy", "f1", "recall", "loss"] = "accuracy"
    """Metric on the validation split; accuracy: of speech-recognition that of words, 1 - wer."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Evaluations without a gain before the end."""
    min_delta: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Smallest gain that counts, in the metric's own unit."""


class CheckpointPolicy(Model):
    """When training saves its state; the last two are kept, and one is written on SIGTERM."""

    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimizer steps between checkpoints; absent: by time only."""
    every_minutes: Annotated[float, Field(gt=0, le=1440)] = 10.0
    """Minutes between checkpoints."""


class Training(Model):
    """Plain PyTorch training under torchrun."""

    batch_size: Annotated[int, Field(ge=1, le=1_048_576)] = 64
    """Global batch: samples of one optimizer step over all processes and accumulation steps."""
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 3e-4
    """Peak learning rate."""
    optimizer: Optimizer = Optimizer.ADAMW
    """Optimizer."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    """Decoupled for AdamW, L2 for the others; not on biases and norms."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """For SGD."""
    schedule: Schedule = Schedule.COSINE
    """Learning rate over the steps."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps in which the learning rate rises from 0."""
    precision: Precision = Precision.FP32
    """Arithmetic of the forward and backward pass; FP16 scales the loss so that small gradients stay (torch.amp.GradScaler)."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Micro-batches of one optimizer step."""
    gradient_clip_norm: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Largest norm of the gradient; absent: not clipped."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread over all classes."""
    class_weights: Literal["None", "Balanced"] = "None"
    """Balanced: inverse to a class's frequency in train."""
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Alpha of mixup (Zhang et al., 2018), of images only; 0: off."""
    cutmix: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Alpha of CutMix (Yun et al., 2019), of images only; 0: off. With mixup too, a batch gets one of them."""
    augmentation: Literal["None", "Light", "Standard"] = "Light"
    """None: the preprocessing alone. Light: small shifts; of sound in time, with a gain of up to 6 dB. Standard: random resized crop and
    flip; of sound Light, and a stretch and a band are silenced (SpecAugment)."""
    regularizers: Annotated[list[WeightedRegularizer], Field(max_length=4)] = []
    """Penalties added to the task's loss."""
    ema: Ema | None = None
    """Absent: off."""
    early_stopping: EarlyStopping | None = None
    """Absent: off."""
    activation_checkpointing: bool = False
    """Keep of each block only its input and compute it again in the backward pass: less memory, a third more time."""
    parallelism: Parallelism = Parallelism.DDP
    """DDP: each process holds all weights, gradients and moments. FSDP2: each holds a part of what learns, beside one whole copy of the
    weights."""
    compile: bool = False
    """torch.compile on the model; needs a C++ compiler in the image."""
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    """When training saves its state."""


TrainableGlobs = Annotated[list[Glob], Field(max_length=64)]
Metric = Annotated[str, StringConstraints(max_length=63, pattern=r"^[a-z][A-Za-z0-9]*$")]
