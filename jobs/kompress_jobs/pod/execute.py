"""The life of a user's stage in a pod: is it done already? else run it (once a seed), commit what it made, and say what came out.

In a gang rank 0 alone looks for a commit, after the rendezvous and before training, and tells the others: two ranks that
looked for themselves might see different things, and one would wait for the other for ever.
"""

import logging
from collections.abc import Callable

from kompress_api.contract import StageInput, StageSuccess
from kompress_api.names import SOURCE
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.evaluation import seeds
from kompress_jobs.planning import plan as plans
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.artifacts import Commit, ManifestInput
from kompress_jobs.storage.store import Store

log = logging.getLogger(__name__)


def execute(
    context: StageContext, store: Store, key: str, run: Callable[[StageContext], StageOutput], plan: "plans.Plan | None" = None
) -> StageSuccess:
    """The result of the stage; what ranks other than 0 return is not looked at. Raises what the stage raises."""
    found = artifacts.reusable(store, key) if context.rank == 0 else None
    if context.from_rank_0(lambda: found is not None):
        if found is not None:
            context.events.progress(1, 1, f"reused {found.uri}")
            measure_other_data(context, found, plan)
        return success(key, found)
    if context.input.reuse:
        return StageSuccess(key=key, hit=False)
    output = seeds.run(context, run)
    if context.rank != 0:
        return StageSuccess(key=key)
    if output.folder is None:
        raise ValueError(f"stage {context.input.name} left no folder to commit")
    stage = context.input
    inputs = [ManifestInput(role=entry.role, stage=entry.stage, key=entry.key, digest=entry.digest) for entry in stage.inputs]
    commit = artifacts.commit(store, key, stage.job.uid, stage.attempt, output.folder, output.metrics, output.details, inputs)
    if commit.replaced:
        context.events.warning(f"replaced a damaged commit: {commit.replaced}")
    context.checkpoints.remove_own()
    measure_other_data(context, commit, plan)
    return success(key, commit)


def success(key: str, commit: Commit | None) -> StageSuccess:
    """What is told of a commit."""
    if commit is None:
        return StageSuccess(key=key)
    return StageSuccess(artifact=commit.uri, digest=commit.digest, key=key, reused=commit.reused, metrics=commit.metrics)


def measure_other_data(context: StageContext, commit: Commit, plan: "plans.Plan | None") -> None:
    """What `evaluation.datasets` asks of this stage and nobody has measured (rank 0)."""
    if context.input.evaluation.datasets:
        from kompress_jobs.evaluation import other_data  # torch, which a small pod that verifies a commit does not need

        other_data.measure(context, commit, plan)


def tell_data(context: StageContext, plan: "plans.Plan | None") -> None:
    """Name the data set of the run."""
    stage: StageInput = context.input
    digest = plan.data.digest if plan else "unknown"
    context.events.dataset(stage.dataset.source, digest, stage.dataset.source)
    for entry in stage.inputs:
        if entry.stage != SOURCE:
            context.events.tags({f"kompress.input.{entry.role}": f"{entry.stage} {entry.digest}"})
