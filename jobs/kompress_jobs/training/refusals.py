"""What a manifest may ask for that this version does not do yet: refused by field path, never ignored.

One table for each block; a row goes when its feature comes.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from kompress_api.errors import MethodRefused
from kompress_api.stages.distill import Distill
from kompress_api.stages.export import Export
from kompress_api.stages.fine_tune import FineTune
from kompress_api.stages.prune import Prune
from kompress_api.training import Parallelism, Precision, Training

Row = tuple[str, Callable[[Any], bool], str]
"""Field as in a manifest, whether it is asked for, what to do instead."""

TRAINING: tuple[Row, ...] = (
    ("mixup", lambda t: t.mixup > 0, "leave it out (0)"),
    ("cutmix", lambda t: t.cutmix > 0, "leave it out (0)"),
    ("regularizers", lambda t: bool(t.regularizers), "leave it out; weightDecay is there"),
    ("activationCheckpointing", lambda t: t.activation_checkpointing, "leave it out, or lower batchSize"),
    ("parallelism", lambda t: t.parallelism is not Parallelism.DDP, "use DDP"),
    ("compile", lambda t: t.compile, "leave it out (false)"),
    ("precision", lambda t: t.precision is Precision.FP16, "use BF16 or FP32"),
)
FINE_TUNE: tuple[Row, ...] = (
    ("trainableModules", lambda f: bool(f.trainable_modules), "use frozenModules with strategy Full"),
    ("gradualUnfreezingEpochs", lambda f: f.gradual_unfreezing_epochs is not None, "leave it out"),
    ("layerDecay", lambda f: f.layer_decay != 1, "leave it out (1)"),
    ("linearProbeEpochs", lambda f: f.linear_probe_epochs is not None, "use a FeatureExtraction stage before a Full one"),
    ("lora", lambda f: f.lora is not None, "leave it out"),
)


def refuse(spec: FineTune | Distill | Prune | Export | Training, *, field: str) -> None:
    """Raise MethodRefused for the first field of a stage that this version does not do; `field` is the path of the stage's kind."""
    if isinstance(spec, Prune):
        if spec.recovery is not None:
            _check(spec.recovery, TRAINING, f"{field}.recovery")
        return
    if isinstance(spec, Training):
        _check(spec, TRAINING, field)
    if isinstance(spec, FineTune):
        _check(spec, FINE_TUNE, field)


def refuse_augmentation(spec: Any, task: ModuleType, *, field: str) -> None:
    """Raise MethodRefused for an augmentation that the task does not have; `spec` is a stage or, of a pruning, its recovery."""
    if isinstance(spec, Prune):
        refuse_augmentation(spec.recovery, task, field=f"{field}.recovery")
    if isinstance(spec, Training) and spec.augmentation not in task.DRAWS:
        raise MethodRefused(
            f"augmentation {spec.augmentation} has no meaning for {task.__name__.rpartition('.')[2].replace('_', '-')}",
            hint=f"use {' or '.join(task.DRAWS)}",
            field=f"{field}.augmentation",
        )


def _check(block: Any, rows: Sequence[Row], field: str) -> None:
    for name, asked, instead in rows:
        if asked(block):
            raise MethodRefused(f"{name} is not built in this version", hint=instead, field=f"{field}.{name}")
