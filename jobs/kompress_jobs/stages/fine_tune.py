"""fineTune: adapt a model to the task's data. What learns is the strategy's business (`strategies/`)."""

from kompress_api.stages.fine_tune import FineTune
from kompress_jobs import bundle, registry, structure
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.engine import Bench
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
    before = bench.measure(found)
    head = structure.head_of(found.model, bundle.sample(found.description).to(context.device))
    registry.load("strategies", spec.strategy, field=bench.field("strategy")).prepare(found.model, spec, head, field=bench.field())
    state = build_state(found.model, spec)
    saved = bench.checkpoints.newest()
    if saved is not None:
        bench.checkpoints.restore(saved, state)
    bench.train(bench.plan(found, spec, spec.epochs), state)
    return bench.finish(found, before)
