"""prune: remove what matters least, and train in between. What is removed is the granularity's business (`granularities/`),
what matters the importance's (`importances/`), how far it goes a ratio's, a budget's or a search's (`pruning/`)."""

from collections.abc import Mapping
from typing import Any

import torch

from kompress_api.errors import MethodRefused
from kompress_api.stages.prune import Prune, Scope
from kompress_api.stages.stage import Stage
from kompress_jobs.bench import Bench, open_bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import Loaded, redescribed
from kompress_jobs.gang import Gang
from kompress_jobs.loading import assemble
from kompress_jobs.pruning import budget, search, sensitivity
from kompress_jobs.pruning.calibration import Calibration
from kompress_jobs.pruning.masks import Masked
from kompress_jobs.pruning.recovery import Methods, Steps, Target, recovery_steps, share_epochs, worths_of
from kompress_jobs.rehearsal.rehearse import Bounds, Room
from kompress_jobs.samples import place
from kompress_jobs.training.objective import task_objective
from kompress_jobs.training.refusals import refuse

PATTERN_RATIO = 0.5
"""Of granularity NM."""


def run(context: StageContext) -> StageOutput:
    """Prune in steps with recovery in between, and write a bundle."""
    bench, spec = open_bench(context, Prune)
    refuse(spec, field=bench.field())
    methods = Methods.of(spec, field=bench.field())
    found = bench.take("model", "Keep")
    found.model.requires_grad_(True)
    before = bench.before("model", found)
    details: dict[str, Any] = {}
    if spec.sensitivity:
        details["sensitivity"] = sensitivity.measure(bench, found, spec, methods)
    saved = bench.checkpoints.newest()
    ratio = fixed_ratio(spec)
    if spec.search:
        ratio, details["search"] = search.run(bench, found, spec, methods, saved)
    first = search.trial_steps(bench, spec) if spec.search else 0
    epochs = spec.recovery.epochs if spec.recovery else 0
    steps = Steps(
        bench,
        spec,
        methods,
        share_epochs(epochs, spec.iterative_steps),
        to_budget(bench, found, spec) if spec.constraints else lambda *_: ratio,
        first_step=first,
        all_steps=first + recovery_steps(bench, spec, epochs),
        memory={"trials": details["search"]["trials"]} if spec.search else {},
    )
    pruner = steps.run(found, saved if saved and "trial" not in saved.stage else None)
    if not spec.constraints:  # a budget may be kept already
        pruner.refuse_untouched()
    details |= {"removed": pruner.removed(), "ratio": steps.ratio, "layers": steps.layers}
    if isinstance(pruner, Masked):
        details["sparsity"] = pruner.sparsity()
        context.events.metrics({"prune/sparsity": details["sparsity"]})
    pruned = redescribed(found, history=[*found.description.history, pruner.change()])
    output = bench.finish(pruned, before, details)
    warn(bench, found, spec, output)
    return output


def fixed_ratio(spec: Prune) -> float:
    """The share that is to go where the manifest says it; 0 where a budget or a search finds it."""
    return spec.pruning_ratio or spec.sparsity or (PATTERN_RATIO if spec.pattern else 0.0)


def to_budget(bench: Bench, found: Loaded, spec: Prune) -> Target:
    """Collective: the smallest ratio that keeps the budgets, found by rank 0: latency is that of its machine."""
    assert spec.constraints is not None
    wanted = budget.budgets(spec.constraints)
    sample = place(found.description.preprocessing.sample(1), bench.context.device)

    def target(pruner: Any, worths: Any) -> float:
        ratio = 0.0
        if bench.gang.rank == 0:
            ratio = budget.smallest_ratio(pruner, worths, wanted, sample, spec.max_pruning_ratio, field=bench.field("constraints"))
        return float(bench.gang.broadcast(ratio))

    return target


def warn(bench: Bench, found: Loaded, spec: Prune, output: StageOutput) -> None:
    """Collective: say where the finished model has left what was asked for."""
    events, constraints = bench.context.events, spec.constraints
    if constraints and constraints.latency_ms and bench.context.device.type == "cpu":
        latency = output.metrics["latencyP50Ms"]
        if latency > constraints.latency_ms:
            events.warning(f"measured again, the latency is {latency:.3g} ms, above {constraints.latency_ms:g}: the machine is noisy")
    if spec.search:
        accuracy, least = bench.accuracy(found), output.details["search"]["least"]
        if accuracy < least:
            events.warning(f"after the full recovery the validation accuracy is {accuracy:.4f}, below the {least:.4f} that the search kept")


def rehearse(stage: Stage, inputs: Mapping[str, Loaded], room: Room, *, field: str) -> Loaded:
    """See `rehearsal`: prunes all steps at once, in every layer alike (where the real weights will cut is not known yet)."""
    spec = stage.spec
    assert isinstance(spec, Prune)
    refuse(spec, field=field)
    methods = Methods.of(spec, field=field)
    found = assemble.with_labels(inputs["model"], room.data, "Keep", field=field)
    found.model.requires_grad_(True)
    pruner = methods.pruner(found, spec.model_copy(update={"scope": Scope.LOCAL}), field=field)
    learn = task_objective(room.task, found.description.preprocessing, smoothing=0.0, weight=None)
    calibration = Calibration(lambda: [room.batch()], learn, Gang(0, 1, torch.device("cpu")))
    worths = worths_of(pruner, calibration, methods.importance, room.seed)
    ratio = fixed_ratio(spec) or spec.max_pruning_ratio / 2
    wanted = sizes_wanted(spec)
    if wanted:
        sample = found.description.preprocessing.sample(1)
        ratio = budget.smallest_ratio(pruner, worths, wanted, sample, spec.max_pruning_ratio, field=f"{field}.constraints")
    pruner.apply(pruner.choose(worths, ratio))
    if not spec.constraints:
        pruner.refuse_untouched()
    if spec.recovery is not None:
        room.step(found, learn, spec.recovery, field=f"{field}.recovery")
    return redescribed(found, history=[*found.description.history, pruner.change()])


def sizes_wanted(spec: Prune) -> dict[str, float]:
    """Budgets that a rehearsal can judge: latency is this machine's, and no stage's."""
    found = budget.budgets(spec.constraints) if spec.constraints else {}
    return {name: value for name, value in found.items() if name != "latencyP50Ms"}


def bounds(stage: Stage, low: Loaded, high: Loaded, expected: Loaded, room: Room, *, exact: bool, field: str) -> Bounds:
    """See `rehearsal`. What goes is bounded by limits and ratio alone, whatever the weights (`pruning.selection.extremes`).

    A budget of sizes alone with scope Local finds the same ratio for any weights, so that the rehearsal's model is the result.
    """
    spec = stage.spec
    assert isinstance(spec, Prune)
    methods = Methods.of(spec, field=field)
    wanted = sizes_wanted(spec)
    latency = spec.constraints is not None and spec.constraints.latency_ms is not None
    if exact and wanted and not latency and spec.scope is Scope.LOCAL:
        return Bounds(expected, expected)
    ratio = fixed_ratio(spec)
    span = (ratio, ratio) if ratio else (0.0, spec.max_pruning_ratio)

    def extreme(found: Loaded, side: str) -> Loaded:
        try:
            pruner = methods.pruner(found, spec, field=field)
        except MethodRefused:  # a stage above may already have left nothing to remove
            return found
        getattr(pruner, side)(*span, spec.iterative_steps)
        return redescribed(found, history=[*found.description.history, pruner.change()])

    return Bounds(extreme(low, "at_most"), extreme(high, "at_least"), wanted)
