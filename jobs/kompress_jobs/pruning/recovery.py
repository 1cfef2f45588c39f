"""Pruning in steps with recovery in between: the one way in which a search's trials and the stage itself prune.

Each step looks at the loss again, cuts a little more, and trains; a step that was interrupted in its training goes on there.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

from kompress_api.errors import MethodRefused
from kompress_api.stages.prune import Prune
from kompress_jobs import registry
from kompress_jobs.bench import Bench
from kompress_jobs.chance import mix
from kompress_jobs.description import Loaded
from kompress_jobs.modules import structure
from kompress_jobs.pruning.calibration import Calibration
from kompress_jobs.pruning.selection import SCHEDULES
from kompress_jobs.samples import move
from kompress_jobs.training.batches import Batch
from kompress_jobs.training.checkpoint import Saved
from kompress_jobs.training.objective import task_objective
from kompress_jobs.training.order import Order
from kompress_jobs.training.state import build_state

CALIBRATION_BATCH = 64
"""Samples of a calibration batch where there is no recovery that says."""
Pruner = Any
"""`pruning.structural.Structural` or `pruning.masks.Masked`."""
Target = Callable[[Pruner, Any], float]
"""The ratio that the last step must reach, from a pruner and the worths of what is left."""


@dataclass(frozen=True)
class Methods:
    """The modules that a stage names."""

    granularity: ModuleType
    importance: ModuleType

    @classmethod
    def of(cls, spec: Prune, *, field: str) -> "Methods":
        """Raises UnknownMethod, and MethodRefused for an importance that says nothing of what the granularity removes."""
        granularity = registry.load("granularities", spec.granularity, field=f"{field}.granularity")
        importance = registry.load("importances", spec.importance, field=f"{field}.importance")
        if not ranks(importance, granularity):
            others = [name for name in type(spec.importance) if ranks(registry.load("importances", name, field=""), granularity)]
            raise MethodRefused(
                f"importance {spec.importance} says nothing of what granularity {spec.granularity} removes",
                hint=f"use {', '.join(others)}",
                field=f"{field}.importance",
            )
        return cls(granularity, importance)

    def pruner(self, found: Loaded, spec: Prune, *, field: str) -> Pruner:
        """For this model, which is changed in place."""
        sample = found.sample()
        head = structure.head_of(found.model, sample)
        return self.granularity.Pruner(found.model, sample, self.importance, spec, head, field=field)


def ranks(importance: ModuleType, granularity: ModuleType) -> bool:
    """Whether the importance has a function for what the granularity removes."""
    return any(hasattr(importance, function) for function in granularity.RANKS)


def worths_of(pruner: Pruner, calibration: Calibration, importance: ModuleType, seed: int) -> Any:
    """Collective: what everything that is left is worth now; the same seed draws the same random worths."""
    calibration.collect(pruner.model, importance.EVIDENCE)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(seed, 5))
        return pruner.worths(calibration.loss)


@dataclass
class Steps:
    """One course of pruning and recovery."""

    bench: Bench
    spec: Prune
    methods: Methods
    epochs: list[int]
    """After each step."""
    target: Target
    first_step: int = 0
    """Optimizer steps of the stage before this course."""
    all_steps: int = 0
    """Of the whole stage."""
    memory: Mapping[str, Any] = field(default_factory=dict)
    """What the stage must know to come back to this course."""
    ratio: float = 0.0
    """That the last step had to reach."""
    layers: list[dict[str, Any]] = field(default_factory=list)
    """Every layer, what it lost in the last step, and why."""

    def run(self, found: Loaded, saved: Saved | None = None) -> Pruner:
        """Collective: prune and train `found` in place; `saved` is a checkpoint of this course."""
        bench, spec = self.bench, self.spec
        pruner = self.methods.pruner(found, spec, field=bench.field())
        start = saved.stage["step"] if saved else 0
        if saved:
            pruner.restore(saved.stage["change"])
            self.ratio, self.layers = saved.stage["ratio"], saved.stage["layers"]
        lengths = [recovery_steps(bench, spec, epochs) for epochs in self.epochs]
        ratios = SCHEDULES[spec.schedule]
        for step in range(start, len(self.epochs)):
            resumed = saved if saved and step == start else None
            if resumed is None:
                seed = mix(bench.input.seed, step)
                worths = worths_of(pruner, bench_calibration(bench, found, spec), self.methods.importance, seed)
                self.ratio = self.target(pruner, worths)
                pruner.apply(pruner.choose(worths, ratios(self.ratio, len(self.epochs))[step + 1]))
                self.layers = pruner.explain(worths)
            if spec.recovery is None or not self.epochs[step]:
                continue
            state = build_state(found.model, spec.recovery, sample=found.sample())
            if resumed:
                bench.checkpoints.restore(resumed, state)
            pruner.hold(state.optimizer)
            memory = {**self.memory, "step": step, "change": pruner.change(), "ratio": self.ratio, "layers": self.layers}
            progress: dict[str, Any] = {
                "first_step": self.first_step + sum(lengths[:step]),
                "all_steps": self.all_steps or sum(lengths),
                "stage_memory": memory,
            }
            bench.train(bench.plan(found, spec.recovery, self.epochs[step], **progress), state)
        return pruner


def recovery_steps(bench: Bench, spec: Prune, epochs: int) -> int:
    """Optimizer steps of a recovery."""
    return Order(len(bench.data.train), spec.recovery.batch_size, epochs, 0).steps if spec.recovery else 0


def share_epochs(epochs: int, steps: int) -> list[int]:
    """Epochs after each pruning step: the last gets at least half, the earlier ones share the rest, the first of them the odd ones."""
    last = epochs if steps == 1 else math.ceil(epochs / 2)
    others, odd = divmod(epochs - last, max(1, steps - 1))
    return [others + (step < odd) for step in range(steps - 1)] + [last]


def bench_calibration(bench: Bench, found: Loaded, spec: Prune) -> Calibration:
    """`calibrationBatches` batches of train, without augmentation."""
    size = spec.recovery.batch_size if spec.recovery else CALIBRATION_BATCH
    order = Order(len(bench.data.train), size, 1, bench.input.seed)

    def batches() -> Iterator[Batch]:
        shuffled = order.shuffled(0)
        for step in range(min(spec.calibration_batches, order.steps)):
            indices = bench.gang.share(order.indices(step, shuffled))
            samples, seen = bench.data.train.read(indices)
            chosen = indices[seen]
            if len(chosen):
                targets = bench.data.train.labels[chosen].to(bench.context.device)
                yield Batch(move(samples, bench.context.device), targets, chosen, 1.0)

    learn = task_objective(bench.task, found.description.preprocessing, smoothing=0.0, weight=None)
    return Calibration(batches, learn, bench.gang)
