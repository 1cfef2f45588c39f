"""evaluation.seeds: the same training again with other seeds, to tell a method from its luck.

Every stage that trains is run with `seed`, `seed + 1`, ... from the same inputs. The first is the stage's result; of the others
the figures are kept (`seeds` in the manifest's details) and the models are not. The others come first, and what each found is
noted beside the checkpoints, so that an interrupted stage repeats none of them; the one that is under way has checkpoints of
its own. What is measured is the spread of this stage's training alone: the models that it starts from stay the same.
"""

import dataclasses
import random
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from kompress_api.stages.stage import Stage
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.events import Aside
from kompress_jobs.storage.checkpoints import CheckpointStore

LARGEST = 2**31
Run = Callable[[StageContext], StageOutput]


def trains(stage: Stage) -> bool:
    """Whether a stage draws what another seed would change: it trains."""
    return stage.kind in ("fineTune", "distill") or any(getattr(stage.spec, name, None) for name in ("recovery", "training"))


def run(context: StageContext, run_stage: Run) -> StageOutput:
    """Collective: the stage's own output, with the figures of the other seeds in its details."""
    others = [repeat(context, number, run_stage) for number in numbers(context)]
    seed_generators(context.input.seed)
    output = run_stage(context)
    if others:
        output.details["seeds"] = [{"seed": context.input.seed, "metrics": output.metrics}, *others]
    return output


def numbers(context: StageContext) -> range:
    """Of the repeats, from 1."""
    stage = context.input.stage
    return range(1, context.input.evaluation.seeds if stage is not None and trains(stage) else 1)


def repeat(context: StageContext, number: int, run_stage: Run) -> dict[str, Any]:
    """Collective: {"seed", "metrics"} of one repeat, run or noted by an earlier attempt of this job."""
    noted = context.from_rank_0(lambda: context.checkpoints.noted(name_of(number)))
    if noted is not None:
        return {name: noted[name] for name in ("seed", "metrics")}
    seed = (context.input.seed + number) % LARGEST
    aside = dataclasses.replace(
        context,
        input=context.input.model_copy(update={"seed": seed}),
        checkpoints=checkpoints_of(context, number),
        events=Aside(context.events, name_of(number)),
    )
    seed_generators(seed)
    output = run_stage(aside)
    told = {"seed": seed, "metrics": output.metrics}
    if context.rank == 0:
        newest = aside.checkpoints.newest()
        context.checkpoints.note(name_of(number), told | {"steps": newest.step if newest else 0})
        aside.checkpoints.remove_own()
        if output.folder is not None:
            shutil.rmtree(output.folder)  # the next one's model goes there
    return told


def newest_step(context: StageContext) -> int | None:
    """How far the stage has come, by its newest checkpoint: the steps of repeats that are done count too. None: there is none."""
    done, notes = 0, False
    for store in stores(context):
        if isinstance(store, int):
            done, notes = done + store, True
        elif newest := store.newest():
            return done + newest.step
    return done if notes else None


def stores(context: StageContext) -> Iterator[int | CheckpointStore]:
    """Of each repeat in turn, and of the stage's own run: the steps that it took when it is done, else its checkpoints."""
    for number in numbers(context):
        noted = context.checkpoints.noted(name_of(number))
        yield noted["steps"] if noted is not None else checkpoints_of(context, number)
    yield context.checkpoints


def checkpoints_of(context: StageContext, number: int) -> CheckpointStore:
    """Those of a repeat."""
    return context.checkpoints.nested(f"seeds/{number}")


def name_of(number: int) -> str:
    """Of a repeat, in notes and in MLflow's figures."""
    return f"repeat{number}"


def seed_generators(seed: int) -> None:
    """All that draw by themselves."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
