"""What a manifest may ask of a training that has no meaning, can't work, or is not built: refused by field path, never ignored."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from pydantic.alias_generators import to_camel

from kompress_api.errors import MethodRefused
from kompress_api.goals import measured_by
from kompress_api.stages.distill import Distill, DistillLoss
from kompress_api.stages.export import Export
from kompress_api.stages.fine_tune import FineTune, Strategy
from kompress_api.stages.fuse import Fuse
from kompress_api.stages.prune import Granularity, Prune
from kompress_api.training import Parallelism, Regularizer, Training
from kompress_jobs.training.mixing import mixes

Row = tuple[str, Callable[[Any], bool], str, str]
"""Field as in a manifest, whether it is asked for, why not, what to do instead."""


def sharded(settings: Training) -> bool:
    return settings.parallelism is Parallelism.FSDP2


NOT_BUILT = "is not built in this version"
TRAINING: tuple[Row, ...] = (
    ("compile", lambda t: t.compile and sharded(t), f"together with FSDP2 {NOT_BUILT}", "use one of them"),
    (
        "compile",
        lambda t: t.compile and t.activation_checkpointing,
        f"together with activationCheckpointing {NOT_BUILT}",
        "use one of them",
    ),
    (
        "compile",
        lambda t: t.compile and shutil.which(os.environ.get("CXX", "g++")) is None,
        "needs a C++ compiler, and the image has no g++",
        "FROM the image, and install g++; or leave it out",
    ),
)
FINE_TUNE: tuple[Row, ...] = (
    (
        "regularizers",
        lambda f: f.strategy is Strategy.LORA and any(part.type is Regularizer.L2SP for part in f.regularizers),
        "L2SP says nothing of LoRA, whose weights rest where training began",
        "use L2, which keeps the updates small",
    ),
)
DISTILL: tuple[Row, ...] = (
    (
        "losses",
        lambda d: mixes(d) and any(part.type is DistillLoss.DKD for part in d.losses),
        "DKD needs one true class a sample, and mixup and cutmix give two",
        "use KD",
    ),
)
ROUNDED: tuple[Row, ...] = (
    ("compile", lambda t: t.compile, f"of a model that rounds {NOT_BUILT}", "leave it out"),
    ("parallelism", sharded, f"FSDP2 of a model that rounds {NOT_BUILT}", "use DDP"),
    (
        "activationCheckpointing",
        lambda t: t.activation_checkpointing,
        "ranges of activations follow each run of a layer, so a second run would see others",
        "leave it out",
    ),
)
"""Of quantization-aware training."""
MASKED: tuple[Row, ...] = (("parallelism", sharded, f"FSDP2 with weights that stay zero {NOT_BUILT}", "use DDP"),)
"""Of the recovery from a pruning that makes zeros."""


def refuse(spec: Distill | Prune | Export | Training, *, field: str) -> None:
    """Raise MethodRefused for the first field of a stage that can't be had; `field` is the path of the stage's kind."""
    if isinstance(spec, Prune) and spec.recovery is not None:
        masked = spec.granularity in (Granularity.WEIGHT, Granularity.NM)
        _check(spec.recovery, TRAINING + (MASKED if masked else ()), f"{field}.recovery")
    if isinstance(spec, Training):
        _check(spec, TRAINING, field)
    if isinstance(spec, FineTune):
        _check(spec, FINE_TUNE, field)
    if isinstance(spec, Distill):
        _check(spec, DISTILL, field)


def refuse_rounded(settings: Training, *, field: str) -> None:
    """The same for quantization-aware training."""
    _check(settings, TRAINING + ROUNDED, field)


def refuse_shared_gpus(spec: Any, *, field: str) -> None:
    """Raise MethodRefused for what processes can't do together on one GPU; `spec` is a stage."""
    for settings, where in trainings(spec, field):
        if sharded(settings):
            raise MethodRefused(
                "FSDP2 needs a GPU for each process, and there are fewer here",
                hint="set processesPerNode: auto, ask for more GPUs, or use DDP",
                field=f"{where}.parallelism",
            )


def refuse_for_task(spec: Any, task: ModuleType, *, field: str) -> None:
    """Raise MethodRefused for what the task's samples don't take; `spec` is a stage."""
    called = task.__name__.rpartition(".")[2].replace("_", "-")
    without: Mapping[str, str] = getattr(task, "NO_MEANING", {})
    for method, where in methods(spec, field):
        if method in without:
            raise MethodRefused(f"{method} has no meaning for {called}: {without[method]}", hint="use another method", field=where)
    for settings, where in trainings(spec, field):
        for name, default in (("label_smoothing", 0.0), ("class_weights", "None")):
            if name in without and getattr(settings, name) != default:
                setting = to_camel(name)
                raise MethodRefused(
                    f"{setting} has no meaning for {called}: {without[name]}", hint="leave it out", field=f"{where}.{setting}"
                )
        early = settings.early_stopping
        if early is not None and early.metric != "accuracy" and early.metric not in measured_by(called):
            raise MethodRefused(f"{called} has no {early.metric}", hint="use accuracy or loss", field=f"{where}.earlyStopping.metric")
        if settings.augmentation not in task.DRAWS:
            raise MethodRefused(
                f"augmentation {settings.augmentation} has no meaning for {called}",
                hint=f"use {' or '.join(task.DRAWS)}",
                field=f"{where}.augmentation",
            )
        for name in ("mixup", "cutmix"):
            if getattr(settings, name) and not getattr(task, "MIXES", False):
                raise MethodRefused(
                    f"{name} has no meaning for {called}: only images have one between two of them",
                    hint="leave it out (0)",
                    field=f"{where}.{name}",
                )


def methods(spec: Any, field: str) -> Iterator[tuple[str, str]]:
    """Values of a stage that name a method on which the task may have a word, and their paths."""
    if isinstance(spec, Distill):
        for index, part in enumerate(spec.losses):
            yield part.type.value, f"{field}.losses[{index}].type"
    if isinstance(spec, Fuse):
        yield spec.method.value, f"{field}.method"


def trainings(spec: Any, field: str) -> Iterator[tuple[Training, str]]:
    """Every block of a stage that says how to train, and its path."""
    if isinstance(spec, Training):
        yield spec, field
    for name in ("recovery", "training"):
        if isinstance(found := getattr(spec, name, None), Training):
            yield found, f"{field}.{name}"


def _check(block: Any, rows: Sequence[Row], field: str) -> None:
    for name, asked, why, instead in rows:
        if asked(block):
            raise MethodRefused(f"{name}: {why}", hint=instead, field=f"{field}.{name}")
