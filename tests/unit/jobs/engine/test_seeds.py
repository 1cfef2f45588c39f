"""evaluation.seeds: the spread is that of real trainings, the model is the one that a single seed makes, and nothing is trained twice."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stage_contexts import build_context

from kompress_api.errors import Interrupted
from kompress_jobs import events
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.evaluation import seeds
from kompress_jobs.stages import fine_tune, prune

RunStage = Callable[[StageContext], StageOutput]
TUNE = {"fineTune": {"epochs": 2, "batchSize": 64, "learningRate": 5e-3}}
SAVING = {"fineTune": TUNE["fineTune"] | {"checkpoint": {"everySteps": 10}}}
THREE = {"seeds": 3}


def weights(output: StageOutput) -> bytes:
    assert output.folder is not None
    return (output.folder / "model.safetensors").read_bytes()


def test_the_model_is_that_of_the_first_seed_and_the_others_tell_the_spread(tmp_path: Path) -> None:
    once = seeds.run(build_context(tmp_path, TUNE, scratch="once"), fine_tune.run)
    assert "seeds" not in once.details
    context = build_context(tmp_path, TUNE, scratch="thrice", evaluation=THREE)
    output = seeds.run(context, fine_tune.run)
    assert weights(output) == weights(once)
    told = output.details["seeds"]
    assert [entry["seed"] for entry in told] == [0, 1, 2]
    assert told[0]["metrics"] == output.metrics
    assert len({entry["metrics"]["loss"] for entry in told}) == 3, "they are three trainings"
    second = seeds.run(build_context(tmp_path, TUNE, scratch="second", seed=1), fine_tune.run)
    assert told[1]["metrics"]["loss"] == second.metrics["loss"], "a repeat is what a job with that seed gets"


def test_what_draws_by_itself_draws_the_same_whatever_came_before(tmp_path: Path) -> None:
    """A user's own module may ask torch for numbers: with three seeds it must make the model that it makes with one."""
    drawn: list[float] = []

    def draw(context: StageContext) -> StageOutput:
        drawn.append(float(torch.rand(1)))
        return StageOutput()

    seeds.run(build_context(tmp_path, TUNE, scratch="once"), draw)
    seeds.run(build_context(tmp_path, TUNE, scratch="thrice", evaluation=THREE), draw)
    assert drawn[-1] == drawn[0]
    assert len(set(drawn)) == 3


def test_the_charts_keep_the_stage_s_own_training_apart_from_the_repeats(tmp_path: Path) -> None:
    context = build_context(tmp_path, TUNE, evaluation={"seeds": 2})
    seeds.run(context, fine_tune.run)
    told = [event for event, _ in events.read(context.scratch)]
    names = [name for event in told if event["type"] == "metrics" for name in event["values"]]
    assert names.count("test/accuracy") == names.count("repeat1/test/accuracy") == 1
    assert [event["values"]["seed"] for event in told if event["type"] == "params"] == ["0"]


class Interrupting:
    """Runs a stage and remembers the seeds; before the run number `before` the pod is asked to go."""

    def __init__(self, before: int | None = None) -> None:
        self.before, self.seeds = before, []

    def __call__(self, context: StageContext) -> StageOutput:
        if len(self.seeds) == self.before:
            raise Interrupted("stopped", hint="again")
        self.seeds.append(context.input.seed)
        return fine_tune.run(context)


def test_an_interrupted_stage_repeats_no_seed_that_is_done(tmp_path: Path) -> None:
    """Each repeat is a whole training: three restarts would cost three of them."""
    first = Interrupting(before=2)
    with pytest.raises(Interrupted):
        seeds.run(build_context(tmp_path, SAVING, scratch="first", evaluation=THREE), first)
    again = Interrupting()
    context = build_context(tmp_path, SAVING, scratch="again", evaluation=THREE, attempt=2)
    output = seeds.run(context, again)
    assert (first.seeds, again.seeds) == ([1, 2], [0])
    assert [entry["seed"] for entry in output.details["seeds"]] == [0, 1, 2]
    context.checkpoints.remove_own()
    assert list(context.checkpoints.store.list("checkpoints/")) == [], "nothing is left of the repeats"


def test_progress_over_all_seeds_never_goes_back(tmp_path: Path) -> None:
    """A free restart that brought no newer checkpoint spends the budget, and a second seed begins at step 1."""
    context = build_context(tmp_path, SAVING, evaluation={"seeds": 2})
    seen: list[int | None] = []

    def run(given: StageContext) -> StageOutput:
        seen.append(seeds.newest_step(context))
        output = fine_tune.run(given)
        seen.append(seeds.newest_step(context))
        return output

    seeds.run(context, run)
    before, first, noted, both = seen
    assert before is None
    assert first is not None
    assert both is not None
    assert first >= 10, "42 steps a training, one checkpoint every ten but where the one before is still being written"
    assert noted == first
    assert both > first


def test_what_does_not_train_is_run_once(tmp_path: Path) -> None:
    slim = {"prune": {"importance": "L1", "pruningRatio": 0.5, "roundTo": 1}}
    output = seeds.run(build_context(tmp_path, slim, evaluation=THREE), prune.run)
    assert "seeds" not in output.details
