"""Trainings of a few steps, without figures and bundle, and what was told of them."""

import json

from kompress_api.stages.fine_tune import FineTune
from kompress_jobs.bench import Bench
from kompress_jobs.context import StageContext
from kompress_jobs.training.state import State, build_state


def metrics(context: StageContext, name: str) -> list[float]:
    """What was told of one metric, in order."""
    lines = (context.scratch / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [event["values"][name] for event in events if event["type"] == "metrics" and name in event["values"]]


def train(context: StageContext) -> tuple[Bench, State]:
    """Train the stage's model with what the stage says; no figures, no bundle."""
    assert context.input.stage is not None
    spec = context.input.stage.spec
    assert isinstance(spec, FineTune)
    bench = Bench(context)
    found = bench.take("model")
    state = build_state(found.model, spec)
    bench.train(bench.plan(found, spec, spec.epochs), state)
    return bench, state
