"""fuse: one model out of several. How their weights become one is the method's business (`fusions/`); an ensemble keeps them side
by side (`modules/ensemble.py`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from kompress_api.errors import LabelMismatch, MethodRefused
from kompress_api.stages.fuse import Fuse, FuseMethod
from kompress_api.stages.stage import Stage
from kompress_jobs import registry
from kompress_jobs.bench import Bench, open_bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import Loaded, redescribed
from kompress_jobs.fusions import Material, Tensors
from kompress_jobs.loading import assemble
from kompress_jobs.modules import batch_norm, ensemble
from kompress_jobs.rehearsal.rehearse import Room
from kompress_jobs.training.objective import task_objective
from kompress_jobs.training.refusals import refuse as refuse_settings
from kompress_jobs.training.state import build_state, copy_of


def run(context: StageContext) -> StageOutput:
    """Fuse, train where that is asked for, and write a bundle; `before` are the first model's figures."""
    bench, spec = open_bench(context, Fuse)
    refuse(spec, field=bench.field())
    models = [bench.take(f"model{index}", "Keep") for index in range(len(spec.models))]
    base = bench.take("base", "Keep") if spec.base is not None else None
    require_alike(models, base, spec, field=bench.field())
    before = bench.before("model0", models[0])
    details: dict[str, Any] = {}
    if spec.method is FuseMethod.ENSEMBLE:
        found = ensemble.gather(models, learned=spec.head == "Learned")
        found.model.to(context.device)
    else:
        found = merge(bench, spec, models, base, details)
    if spec.training is not None:
        train(bench, spec, found)
    if spec.fold_batch_norm:
        change = batch_norm.fold(found.model, found.sample(), field=bench.field("foldBatchNorm"))
        found = redescribed(found, history=[*found.description.history, change]) if change else found
    return bench.finish(found, before, {"fuse": details}, role="model0")


def merge(bench: Bench, spec: Fuse, models: Sequence[Loaded], base: Loaded | None, details: dict[str, Any]) -> Loaded:
    """Collective: the first model with the fused weights."""
    found = models[0]
    states = [copy_of(entry.model) for entry in models]

    def adopt(state: Tensors) -> None:
        found.model.load_state_dict(state)
        if spec.reestimate_batch_norm:
            batch_norm.reestimate(found.model, bench.data.train, found.description.preprocessing, bench.gang)

    def score(state: Tensors) -> float:
        bench.stop_point()
        alone = any(state is entry for entry in states)
        found.model.load_state_dict(state) if alone else adopt(state)
        return bench.accuracy(found)

    method = registry.load("fusions", spec.method, field=bench.field("method"))
    material = Material(states, copy_of(base.model) if base is not None else None, spec, score, bench.input.seed)
    fused = method.fuse(material)
    if any(fused.state is entry for entry in states):
        found.model.load_state_dict(fused.state)  # one model alone: its statistics are right as they are
    else:
        adopt(fused.state)
    details |= fused.details
    return found


def train(bench: Bench, spec: Fuse, found: Loaded) -> None:
    """Collective: the learned head alone, or everything."""
    assert spec.training is not None
    head = found.model.head if isinstance(found.model, ensemble.Ensemble) else None
    found.model.requires_grad_(head is None)
    if head is not None:
        head.requires_grad_(True)
    state = build_state(found.model, spec.training, sample=found.sample())
    saved = bench.checkpoints.newest()
    if saved is not None:
        bench.checkpoints.restore(saved, state)
    bench.train(bench.plan(found, spec.training, spec.training.epochs), state)


def refuse(spec: Fuse, *, field: str) -> None:
    """Raise MethodRefused for what has no meaning or would be ignored."""
    if spec.method is FuseMethod.ENSEMBLE:
        if len(spec.models) < 2:
            raise MethodRefused("an ensemble needs two models", hint="name more models", field=f"{field}.models")
        if spec.head == "Learned" and spec.training is None:
            raise MethodRefused(
                "a learned head begins as the mean and has nothing to learn from", hint="give training", field=f"{field}.training"
            )
        if spec.base is not None:
            raise MethodRefused("an ensemble has no base", hint="leave base out", field=f"{field}.base")
    else:
        registry.load("fusions", spec.method, field=f"{field}.method").refuse(spec, field=field)
        if spec.head == "Learned":
            raise MethodRefused("a learned head belongs to method Ensemble", hint="leave head out", field=f"{field}.head")
    if spec.training is not None:
        refuse_settings(spec.training, field=f"{field}.training")


def require_alike(models: Sequence[Loaded], base: Loaded | None, spec: Fuse, *, field: str) -> None:
    """Raise LabelMismatch for other labels, MethodRefused for weights that do not lie over each other."""
    first = models[0]
    named = [(f"{field}.models[{index}]", entry) for index, entry in enumerate(models)] + ([(f"{field}.base", base)] if base else [])
    for where, entry in named:
        if entry.description.labels != first.description.labels:
            raise LabelMismatch(
                f"it knows the labels {entry.description.labels[:5]}, the first model {first.description.labels[:5]}",
                hint="fuse models of one label map",
                field=where,
            )
        if spec.method is FuseMethod.ENSEMBLE:
            continue
        own, theirs = first.model.state_dict(), entry.model.state_dict()
        strange = sorted(set(own) ^ set(theirs)) or [name for name in own if own[name].shape != theirs[name].shape]
        if strange:
            raise MethodRefused(
                f"its architecture is another than the first model's: {strange[0]} differs, so their weights can't be averaged",
                hint="fuse models of one architecture, or use method Ensemble",
                field=where,
            )


def rehearse(stage: Stage, inputs: Mapping[str, Loaded], room: Room, *, field: str) -> Loaded:
    """See `rehearsal`: structure only, as no weight is known yet."""
    spec = stage.spec
    assert isinstance(spec, Fuse)
    refuse(spec, field=field)
    models = [assemble.with_labels(inputs[f"model{i}"], room.data, "Keep", field=f"{field}.models[{i}]") for i in range(len(spec.models))]
    base = inputs.get("base")
    require_alike(models, base, spec, field=field)
    found = models[0]
    if spec.method is FuseMethod.ENSEMBLE:
        found = ensemble.gather(models, learned=spec.head == "Learned")
    if spec.training is not None:
        found.model.requires_grad_(True)
        learn = task_objective(room.task, found.description.preprocessing, smoothing=0.0, weight=None)
        room.step(found, learn, spec.training, field=f"{field}.training")
    if spec.fold_batch_norm:
        change = batch_norm.fold(found.model, found.description.preprocessing.sample(), field=f"{field}.foldBatchNorm")
        found = redescribed(found, history=[*found.description.history, change]) if change else found
    return found
