"""fineTune: adapt a model to the task's data. What learns is the strategy's business (`strategies/`)."""

from collections.abc import Mapping

from kompress_api.stages.fine_tune import FineTune
from kompress_api.stages.stage import Stage
from kompress_jobs import assemble, registry, structure
from kompress_jobs.bundle import Loaded
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.engine import Bench
from kompress_jobs.rehearsal import Room
from kompress_jobs.samples import place
from kompress_jobs.training.objective import task_objective
from kompress_jobs.training.refusals import refuse
from kompress_jobs.training.state import build_state


def run(context: StageContext) -> StageOutput:
    """Train the input model and write a bundle."""
    assert context.input.stage is not None
    spec = context.input.stage.spec
    assert isinstance(spec, FineTune)
    bench = Bench(context)
    refuse(spec, field=bench.field())
    found = bench.take("model", spec.head)
    before = bench.before("model", found)
    freeze(found, spec, field=bench.field())
    state = build_state(found.model, spec)
    saved = bench.checkpoints.newest()
    if saved is not None:
        bench.checkpoints.restore(saved, state)
    bench.train(bench.plan(found, spec, spec.epochs), state)
    return bench.finish(found, before)


def freeze(found: Loaded, spec: FineTune, *, field: str) -> None:
    """Let the strategy say which weights learn."""
    sample = place(found.description.preprocessing.sample(), next(found.model.parameters()).device)
    strategy = registry.load("strategies", spec.strategy, field=f"{field}.strategy")
    strategy.prepare(found.model, spec, structure.head_of(found.model, sample), field=field)


def rehearse(stage: Stage, inputs: Mapping[str, Loaded], room: Room, *, field: str) -> Loaded:
    """See `rehearsal`."""
    spec = stage.spec
    assert isinstance(spec, FineTune)
    refuse(spec, field=field)
    found = assemble.with_labels(inputs["model"], room.data, spec.head, field=f"{field}.head")
    freeze(found, spec, field=field)
    room.step(found, task_objective(room.task, found.description.preprocessing, smoothing=0.0, weight=None), field=field)
    return found
