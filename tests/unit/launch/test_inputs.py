"""A stage must be told where its inputs are, and a report how every stage ended, within one environment variable."""

import pytest

import manifests
from kompress_api.contract import MAX_INPUT_BYTES, JobIdentity, StageInput
from kompress_api.errors import ArtifactMissing
from kompress_api.manifest import parse_spec
from kompress_api.merge import MergedSpec, merge
from kompress_api.runtime import ClusterCompressionRuntimeSpec
from kompress_api.status import Attempt, CompressionJobStatus, Condition, PlanStatus, StageResult, StageState, StageStatus
from kompress_operator.launch.app import is_small
from kompress_operator.launch.inputs import build_input, encode

JOB = JobIdentity(name="good", namespace="ml", uid="u1")
PLATFORM = ClusterCompressionRuntimeSpec.model_validate(
    {"output": {"uri": "s3://models/all"}, "tracking": {"uri": "http://mlflow:5000"}, "runtime": {"image": "jobs:1"}}
)


def merged(**spec: object) -> MergedSpec:
    return merge(parse_spec(manifests.good()["spec"] | spec), PLATFORM)


def done(name: str, key: str) -> StageStatus:
    result = StageResult(artifact=f"s3://models/all/artifacts/{key}/u1-1", digest=f"sha256:{key}", key=key, mlflow_run_id=f"run-{name}")
    attempt = Attempt(attempt=2, started_at="2026-01-01T00:00:00Z", message="old")
    return StageStatus(name=name, state=StageState.SUCCEEDED, result=result, attempts=[attempt])


STATUS = CompressionJobStatus(
    stages=[done("preflight", "p"), done("adapt", "a"), done("student", "s"), done("slim", "c")],
    plan=PlanStatus(uri="s3://models/all/jobs/u1/plan.json", digest="sha256:p"),
    mlflow_run_id="parent",
)


def test_a_stage_learns_its_inputs_from_the_stages_above() -> None:
    built = build_input(JOB, merged(), STATUS, "ship", 3, reuse=True)
    assert [(entry.role, entry.stage, entry.uri, entry.key) for entry in built.inputs] == [
        ("model", "slim", "s3://models/all/artifacts/c/u1-1", "c"),
        ("baseline", "adapt", "s3://models/all/artifacts/a/u1-1", "a"),
    ]
    assert (built.kind, built.attempt, built.reuse, built.baseline) == ("export", 3, True, "adapt")
    assert (built.plan, built.plan_digest, built.parent_run_id) == ("s3://models/all/jobs/u1/plan.json", "sha256:p", "parent")
    assert built.tracking.experiment == "good"


def test_the_first_stage_starts_from_the_source() -> None:
    (entry,) = build_input(JOB, merged(), STATUS, "adapt", 1).inputs
    assert (entry.role, entry.stage, entry.uri) == ("model", "source", None)


@pytest.mark.parametrize(
    ("baseline", "asked"), [("adapt", {"adapt", "ship"}), ("source", {"adapt", "ship"}), ("student", {"student", "ship"})]
)
def test_more_data_sets_are_asked_of_the_final_model_and_the_baseline_alone(baseline: str, asked: set[str]) -> None:
    """Each stage would pay for them otherwise. `source` is measured by the first stage, which starts from it."""
    spec = merged(evaluation={"datasets": [{"source": "builtin://digits"}]}, baseline=baseline)
    names = [stage.name for stage in spec.stages]
    built = {name: build_input(JOB, spec, STATUS, name, 1) for name in names}
    assert {name for name in names if built[name].evaluation.datasets} == asked
    assert is_small(build_input(JOB, spec, STATUS, "slim", 1, reuse=True))
    assert not is_small(build_input(JOB, spec, STATUS, baseline if baseline != "source" else "adapt", 1, reuse=True)), "it has to answer"


def test_a_stage_is_not_told_how_its_pods_look() -> None:
    stages = manifests.good()["spec"]["stages"]
    stages[0]["runtime"] = {"podTemplate": {"metadata": {"labels": {"a": "b"}}}}
    spec = merged(stages=stages)
    for name in ("adapt", "preflight", "report"):
        assert "podTemplate" not in encode(build_input(JOB, spec, STATUS, name, 1)).decode()


def test_it_is_read_back_by_the_other_side() -> None:
    built = build_input(JOB, merged(), STATUS, "preflight", 1)
    assert StageInput.model_validate_json(encode(built)) == built
    assert built.spec is not None and built.spec["stages"][2]["prune"]["pruningRatio"] == 0.5


def test_a_stage_above_without_a_result_is_named() -> None:
    with pytest.raises(ArtifactMissing, match="student starts from adapt"):
        build_input(JOB, merged(), CompressionJobStatus(), "student", 1)


def test_a_report_learns_every_outcome() -> None:
    failed = StageStatus(
        name="ship", state=StageState.FAILED, attempts=[Attempt(attempt=4, started_at="2026-01-01T00:00:00Z", message="parity")]
    )
    condition = Condition(
        type="Failed", status="False", reason="StageFailed", message="stage ship: parity", last_transition_time="2026-01-01T00:00:00Z"
    )
    status = STATUS.model_copy(update={"stages": [*STATUS.stages, failed, StageStatus(name="report")], "conditions": [condition]})
    built = build_input(JOB, merged(), status, "report", 1)
    assert [(entry.name, entry.state, entry.artifact, entry.attempts, entry.message) for entry in built.stages] == [
        ("preflight", "Succeeded", None, 2, ""),
        ("adapt", "Succeeded", "s3://models/all/artifacts/a/u1-1", 2, ""),
        ("student", "Succeeded", "s3://models/all/artifacts/s/u1-1", 2, ""),
        ("slim", "Succeeded", "s3://models/all/artifacts/c/u1-1", 2, ""),
        ("ship", "Failed", None, 4, "parity"),
    ]
    assert built.failure == "StageFailed: stage ship: parity"


def test_a_report_of_the_largest_job_fits_its_variable() -> None:
    """Messages are cut, everything else is told."""
    attempt = Attempt(attempt=1, started_at="2026-01-01T00:00:00Z", message="é" * 1024)
    result = StageResult(artifact="s3://" + "x" * 900, digest="sha256:" + "0" * 64, key="0" * 64, mlflow_run_id="r" * 32)
    stages = [StageStatus(name=f"s{i}", state=StageState.FAILED, attempts=[attempt], result=result) for i in range(32)]
    arguments = {f"argument{i}": "x" * 100 for i in range(64)}
    built = build_input(JOB, merged(model={"source": "timm://a", "arguments": arguments}), CompressionJobStatus(stages=stages), "report", 1)
    assert len(encode(built)) <= MAX_INPUT_BYTES
    assert [entry.artifact for entry in built.stages] == [result.artifact] * 32
