"""prune: remove what matters least, and train in between. What is removed is the granularity's business (`granularities/`),
what matters the importance's (`importances/`)."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from kompress_api.stages.prune import Prune, Scope
from kompress_api.stages.stage import Stage
from kompress_jobs import assemble, registry, structure
from kompress_jobs.bundle import Loaded
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.engine import Bench, redescribed
from kompress_jobs.rehearsal import Room
from kompress_jobs.samples import move, place
from kompress_jobs.training.batches import Batch
from kompress_jobs.training.objective import task_objective
from kompress_jobs.training.order import Order
from kompress_jobs.training.refusals import refuse
from kompress_jobs.training.state import build_state

CALIBRATION_BATCH = 64
"""Samples of a calibration batch where there is no recovery that says."""


def run(context: StageContext) -> StageOutput:
    """Prune in steps with recovery in between, and write a bundle."""
    assert context.input.stage is not None
    spec = context.input.stage.spec
    assert isinstance(spec, Prune)
    bench = Bench(context)
    refuse(spec, field=bench.field())
    granularity = registry.load("granularities", spec.granularity, field=bench.field("granularity"))
    importance = registry.load("importances", spec.importance, field=bench.field("importance"))
    found = bench.take("model", "Keep")
    found.model.requires_grad_(True)
    before = bench.measure(found)
    sample = place(found.description.preprocessing.sample(), context.device)
    head = structure.head_of(found.model, sample)
    pruner = granularity.Pruner(found.model, sample, importance.build(), spec, head, field=bench.field())
    saved = bench.checkpoints.newest()
    start = saved.stage["step"] if saved else 0
    if saved:
        pruner.restore(saved.stage["change"], start + 1)

    epochs = share_epochs(spec.recovery.epochs if spec.recovery else 0, spec.iterative_steps)
    batch_size = spec.recovery.batch_size if spec.recovery else 1
    lengths = [Order(len(bench.data.train), batch_size, count, 0).steps for count in epochs]
    for step in range(start, spec.iterative_steps):
        resumed = saved if saved and step == start else None
        if resumed is None:
            if importance.NEEDS_GRADIENTS:
                fill_gradients(bench, found, spec)
            pruner.step()
        if spec.recovery is None or not epochs[step]:
            continue
        state = build_state(found.model, spec.recovery)
        if resumed:
            bench.checkpoints.restore(resumed, state)
        memory = {"step": step, "change": pruner.change()}
        progress: dict[str, Any] = {"first_step": sum(lengths[:step]), "all_steps": sum(lengths), "stage_memory": memory}
        bench.train(bench.plan(found, spec.recovery, epochs[step], **progress), state)

    details = {"channels": pruner.removed()}
    pruned = redescribed(found, history=[*found.description.history, pruner.change()])
    return bench.finish(pruned, before, details)


def share_epochs(epochs: int, steps: int) -> list[int]:
    """Epochs after each pruning step: the last gets at least half, the earlier ones share the rest, the first of them the odd ones."""
    last = epochs if steps == 1 else math.ceil(epochs / 2)
    others, odd = divmod(epochs - last, max(1, steps - 1))
    return [others + (step < odd) for step in range(steps - 1)] + [last]


def fill_gradients(bench: Bench, found: Loaded, spec: Prune) -> None:
    """Collective: the loss's gradient over `calibrationBatches` batches of train, without augmentation, the same on every rank."""
    settings = spec.recovery
    size = settings.batch_size if settings else CALIBRATION_BATCH
    order = Order(len(bench.data.train), size, 1, bench.input.seed)
    learn = task_objective(bench.task, found.description.preprocessing, smoothing=0.0, weight=None)
    model = found.model.eval()
    model.zero_grad(set_to_none=True)
    shuffled = order.shuffled(0)
    for step in range(min(spec.calibration_batches, order.steps)):
        indices = bench.gang.share(order.indices(step, shuffled))
        samples, seen = bench.data.train.read(indices)
        chosen = indices[seen]
        if not len(chosen):
            continue
        batch = Batch(move(samples, bench.context.device), bench.data.train.labels[chosen].to(bench.context.device), chosen, 1.0)
        with torch.enable_grad():
            learn(model, batch).backward()
    bench.gang.sum_gradients(model)


def rehearse(stage: Stage, inputs: Mapping[str, Loaded], room: Room, *, field: str) -> Loaded:
    """See `rehearsal`: prunes all steps at once, in every layer alike (where the real weights will cut is not known yet)."""
    spec = stage.spec
    assert isinstance(spec, Prune)
    refuse(spec, field=field)
    granularity = registry.load("granularities", spec.granularity, field=f"{field}.granularity")
    importance = registry.load("importances", spec.importance, field=f"{field}.importance")
    found = assemble.with_labels(inputs["model"], room.data, "Keep", field=field)
    found.model.requires_grad_(True)
    sample = found.description.preprocessing.sample()
    at_once = spec.model_copy(update={"iterative_steps": 1, "scope": Scope.LOCAL})
    pruner = granularity.Pruner(found.model, sample, importance.build(), at_once, structure.head_of(found.model, sample), field=field)
    learn = task_objective(room.task, found.description.preprocessing, smoothing=0.0, weight=None)
    if importance.NEEDS_GRADIENTS:
        with torch.enable_grad():
            learn(found.model.eval(), room.batch()).backward()
    pruner.step()
    pruner.removed()
    if spec.recovery is not None:
        room.step(found, learn, field=field)
    return redescribed(found, history=[*found.description.history, pruner.change()])


def is_exact(stage: Stage) -> bool:
    """Whether the size of the result does not depend on the weights."""
    return isinstance(stage.spec, Prune) and stage.spec.scope is Scope.LOCAL
