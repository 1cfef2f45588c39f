"""What a stage attempt is told: the one JSON of KOMPRESS_STAGE, out of the merged spec and what earlier stages made.

Pure. Which stage starts, and when, is `reconcile`'s; how its pods look is `app.py`'s.
"""

from kompress_api.contract import ENV_STAGE, MAX_INPUT_BYTES, Artifact, JobIdentity, StageInput, StageOutcome
from kompress_api.dag import baseline_of, inputs_of
from kompress_api.errors import ArtifactMissing, SpecTooLarge
from kompress_api.job import Evaluation
from kompress_api.merge import MergedSpec
from kompress_api.names import PREFLIGHT, REPORT, RESERVED_STAGES, SOURCE
from kompress_api.stages.stage import Stage
from kompress_api.status import CompressionJobStatus, PlanStatus, StageState, StageStatus

MESSAGE_CUTS = (1024, 512, 128, 0)
"""Lengths that a failed stage's message is cut to, one after the other, until a report's input fits."""


def build_input(
    job: JobIdentity,
    merged: MergedSpec,
    status: CompressionJobStatus,
    stage: str,
    attempt: int,
    *,
    reuse: bool = False,
) -> StageInput:
    """The input of attempt `attempt` of `stage` (a user's stage, `preflight` or `report`).

    `status` must be as new as the decision to start it; `report` learns from its condition `Failed` why the job failed.

    Raises:
        ArtifactMissing: a stage that this one starts from has no result in `status`.
        SpecTooLarge: over 64 KiB.
    """
    for length in MESSAGE_CUTS:
        built = _build(job, merged, status, stage, attempt, reuse=reuse, message_length=length)
        size = len(encode(built))
        if size <= MAX_INPUT_BYTES:
            return built
    raise SpecTooLarge(f"the input of stage {stage} has {size} bytes, the limit is {MAX_INPUT_BYTES}", hint="split the job in two")


def encode(stage_input: StageInput) -> bytes:
    """As it stands in KOMPRESS_STAGE."""
    return stage_input.model_dump_json(by_alias=True, exclude_none=True).encode()


def variable(stage_input: StageInput) -> dict[str, str]:
    """The environment variable that carries it."""
    return {ENV_STAGE: encode(stage_input).decode()}


def _build(
    job: JobIdentity,
    merged: MergedSpec,
    status: CompressionJobStatus,
    name: str,
    attempt: int,
    *,
    reuse: bool,
    message_length: int,
) -> StageInput:
    stage = next((entry for entry in merged.stages if entry.name == name), None)
    if stage is None and name not in (PREFLIGHT, REPORT):
        raise KeyError(name)
    plan = status.plan or PlanStatus(uri="none")
    return StageInput(
        job=job,
        kind=stage.kind if stage else "preflight" if name == PREFLIGHT else "report",
        name=name,
        attempt=attempt,
        task=merged.task,
        seed=merged.seed,
        evaluation=_evaluation(merged, stage),
        model=merged.model,
        dataset=merged.dataset,
        output=merged.output,
        tracking=merged.tracking.model_copy(update={"experiment": merged.tracking.experiment or job.name}),
        stage=stage.model_copy(update={"runtime": None}) if stage else None,
        inputs=_inputs(merged, status, stage) if stage else [],
        goals=merged.goals,
        baseline=baseline_of(merged),
        reuse=reuse,
        plan=plan.uri if status.plan else None,
        plan_digest=plan.digest,
        parent_run_id=status.mlflow_run_id,
        spec=None if stage else merged.without_pod_templates(),
        stages=[_outcome(entry, message_length) for entry in status.stages if entry.name != REPORT] if name == REPORT else [],
        failure=next((f"{said.reason}: {said.message}" for said in status.conditions if said.type == "Failed"), "")
        if name == REPORT
        else "",
    )


def _evaluation(merged: MergedSpec, stage: Stage | None) -> Evaluation:
    """More data sets are asked of two stages only: of the last one listed, and of the baseline (`source`: of the first one, which starts
    from it)."""
    baseline = baseline_of(merged)
    asked = {merged.stages[-1].name, merged.stages[0].name if baseline == SOURCE else baseline}
    return merged.evaluation if stage is None or stage.name in asked else merged.evaluation.model_copy(update={"datasets": []})


def _inputs(merged: MergedSpec, status: CompressionJobStatus, stage: Stage) -> list[Artifact]:
    found = []
    for entry in inputs_of(merged, stage):
        if entry.stage == SOURCE:
            found.append(Artifact(role=entry.role, stage=SOURCE))
            continue
        above = status.stage(entry.stage)
        if above is None or above.result is None:
            raise ArtifactMissing(
                f"stage {stage.name} starts from {entry.stage}, which has no result yet",
                hint="this is a fault of the operator: it started a stage too early",
            )
        result = above.result
        found.append(Artifact(role=entry.role, stage=entry.stage, uri=result.artifact, digest=result.digest, key=result.key))
    return found


def _failure(status: CompressionJobStatus) -> str:
    """Why the job failed: the condition says so before it holds, as it waits for the report."""
    return next((f"{said.reason}: {said.message}" for said in status.conditions if said.type == "Failed"), "")


def _outcome(entry: StageStatus, message_length: int) -> StageOutcome:
    last = entry.attempts[-1] if entry.attempts else None
    result = entry.result
    return StageOutcome(
        name=entry.name,
        state=entry.state,
        artifact=result.artifact if result and entry.name not in RESERVED_STAGES else None,
        mlflow_run_id=result.mlflow_run_id if result else "",
        reused=result.reused if result else False,
        attempts=last.attempt if last else 0,
        message=last.message[:message_length] if last and entry.state == StageState.FAILED else "",
    )
