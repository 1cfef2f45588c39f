"""What a stage is told is not worked out again."""

import dataclasses
from collections.abc import Callable

from kompress_jobs.bench import Bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import redescribed

MakeContext = Callable[..., StageContext]
RunStage = Callable[..., StageOutput]


def test_what_the_stage_before_has_measured_is_not_measured_again(make_context: MakeContext, run_stage: RunStage) -> None:
    """It is the same model on the same samples: a second evaluation would only hold up the first step."""
    spec = {"fineTune": {"epochs": 1, "learningRate": 1e-2}}
    first = run_stage(spec, scratch="first")
    told = dataclasses.replace(first, metrics=first.metrics | {"accuracy": 0.123})
    bench = Bench(make_context(spec, inputs={"model": first.folder}, told=told, scratch="second"))
    found = bench.take("model")
    assert bench.before("model", found).values["accuracy"] == 0.123
    relabelled = redescribed(found, labels=found.description.labels[::-1])
    assert bench.before("model", relabelled).values["accuracy"] != 0.123
