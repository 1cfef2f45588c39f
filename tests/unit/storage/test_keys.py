"""Stage keys: the same work has the same key wherever it is named, other work has another."""

import copy
from typing import Any

import pytest

from kompress_api.contract import Artifact, JobIdentity, StageInput
from kompress_api.job import CompressionJobSpec
from kompress_api.merge import merge
from kompress_jobs.planning import keys
from kompress_jobs.planning.keys import Basis

SPEC: dict[str, Any] = {
    "task": "image-classification",
    "model": {"source": "s3://models/resnet18.safetensors", "architecture": "torchvision://resnet18"},
    "dataset": {"source": "s3://data/flowers", "format": "imagefolder"},
    "output": {"uri": "s3://models/flowers"},
    "tracking": {"uri": "http://mlflow.ml:5000"},
    "runtime": {"image": "jobs:1"},
    "stages": [
        {"name": "adapt", "fineTune": {"epochs": 2}},
        {"name": "student", "distill": {"teachers": [{"from": "adapt"}], "student": {"source": "s3://models/small"}, "epochs": 2}},
        {"name": "slim", "prune": {"pruningRatio": 0.5}},
        {"name": "soup", "fuse": {"method": "TIES", "models": [{"from": "student"}, {"from": "slim"}], "base": "adapt"}},
        {"name": "ship", "export": {"formats": [{"type": "ONNX"}]}},
    ],
}
STAGES = [stage["name"] for stage in SPEC["stages"]]


def edited(*path: str | int, value: Any) -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    below: Any = spec
    for part in path[:-1]:
        below = below.setdefault(part, {}) if isinstance(part, str) else below[part]
    below[path[-1]] = value
    return spec


def planned(
    spec: dict[str, Any] = SPEC, fingerprint: str = "f", source: str = "torchvision 0.29", code: str = "c", student: str = "timm 1.0"
):
    parsed = CompressionJobSpec.model_validate(spec)
    return keys.plan_keys(
        parsed,
        fingerprint,
        source=keys.source_key(parsed.model, {"source": source}),
        code={stage.name: code for stage in parsed.stages},
        students={stage.name: keys.source_key(stage.distill.student, {"source": student}) for stage in parsed.stages if stage.distill},
    )


def changed(other: dict[str, str]) -> set[str]:
    """Positions of the stages whose key is another one; -1 is the source."""
    before, after = list(planned().values()), list(other.values())
    return {index - 1 for index, (one, two) in enumerate(zip(before, after, strict=True)) if one != two}


ALL, BELOW_SOURCE = {-1, 0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}


def test_a_key_is_64_hex_digits_and_each_its_own() -> None:
    found = planned()
    assert list(found) == ["source", *STAGES]
    assert len(set(found.values())) == 6
    assert all(len(key) == 64 and int(key, 16) for key in found.values())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("tracking",), {"uri": "http://elsewhere:5000", "experiment": "e"}),
        (("output",), {"uri": "s3://other", "endpoint": "http://minio:9000"}),
        (("runtime",), {"image": "jobs:2", "nodes": 4, "processesPerNode": 8}),
        (("goals",), [{"metric": "accuracy", "maxDegradation": 0.01}]),
        (("evaluation",), {"datasets": [{"source": "builtin://digits"}]}),
        (("suspend",), True),
        (("maxParallelStages",), 4),
        (("model", "endpoint"), "http://minio:9000"),
        (("model", "credentialsSecret"), "keys"),
        (("dataset", "endpoint"), "http://minio:9000"),
        (("dataset", "region"), "eu-central-1"),
        (("dataset", "credentialsSecret"), "keys"),
        (("stages", 1, "distill", "student", "credentialsSecret"), "keys"),
        (("stages", 0, "runtime"), {"nodes": 2}),
        (("stages", 0, "fineTune", "strategy"), "Full"),  # the default, written out
        (("stages", 0, "fineTune", "layerDecay"), 1),  # the default as an integer
        (("stages", 2, "from"), "student"),  # the stage above, written out
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_does_not_decide_the_result_changes_no_key(path: tuple[str | int, ...], value: Any) -> None:
    assert changed(planned(edited(*path, value=value))) == set()


@pytest.mark.parametrize(
    ("path", "value", "stages"),
    [
        (("seed",), 1, BELOW_SOURCE),
        (("evaluation",), {"seeds": 3}, BELOW_SOURCE),
        (("model", "pretrained"), True, ALL),
        (("model", "arguments"), {"region": "eu"}, ALL),  # the factory's own argument, not the place's region
        (("dataset", "imageSize"), 64, BELOW_SOURCE),
        (("dataset", "splits"), {"test": "held_out"}, BELOW_SOURCE),
        (("stages", 0, "fineTune", "epochs"), 3, BELOW_SOURCE),
        (("stages", 1, "distill", "temperature"), 2.0, {1, 2, 3, 4}),
        (("stages", 1, "distill", "teachers"), [{"from": "source"}], {1, 2, 3, 4}),
        (("stages", 1, "distill", "student", "source"), "timm://resnet14t", {1, 2, 3, 4}),
        (("stages", 2, "from"), "adapt", {2, 3, 4}),
        (("stages", 3, "fuse", "base"), "source", {3, 4}),
        (("stages", 4, "export", "formats"), [{"type": "TorchExport"}], {4}),
        (("baseline",), "source", {4}),  # an input of every export
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_change_reaches_its_stage_and_all_that_come_of_it(path: tuple[str | int, ...], value: Any, stages: set[int]) -> None:
    assert changed(planned(edited(*path, value=value))) == stages


def test_new_data_new_weights_and_new_code_are_new_work() -> None:
    assert changed(planned(fingerprint="other")) == BELOW_SOURCE
    assert changed(planned(source="torchvision 0.30")) == ALL
    assert changed(planned(student="timm 1.1")) == {1, 2, 3, 4}
    assert changed(planned(code="other")) == BELOW_SOURCE


def test_other_names_for_the_same_stages_have_the_same_keys() -> None:
    new = {name: f"stage{index}" for index, name in enumerate(STAGES)}
    renamed = copy.deepcopy(SPEC)
    for stage in renamed["stages"]:
        stage["name"] = new[stage["name"]]
        for reference in [*stage.get("distill", {}).get("teachers", []), *stage.get("fuse", {}).get("models", [])]:
            reference["from"] = new[reference["from"]]
    renamed["stages"][3]["fuse"]["base"] = "stage0"
    assert list(planned(renamed)) == ["source", "stage0", "stage1", "stage2", "stage3", "stage4"]
    assert changed(planned(renamed)) == set()


def test_the_order_of_teachers_and_models_is_part_of_the_work() -> None:
    turned = edited("stages", 3, "fuse", "models", value=[{"from": "slim"}, {"from": "student"}])
    assert changed(planned(turned)) == {3, 4}


def test_a_latency_budget_is_known_only_on_its_machine() -> None:
    budget = CompressionJobSpec.model_validate(edited("stages", 2, "prune", value={"constraints": {"latencyMs": 3}}))
    forecast, stage = planned(edited("stages", 2, "prune", value={"constraints": {"latencyMs": 3}})), budget.stages[2]
    assert keys.needs_hardware(stage)
    assert not keys.needs_hardware(budget.stages[0])
    inputs = {"model": forecast["student"]}
    own = [keys.stage_key(Basis.of(budget, "f"), stage, inputs=inputs, code="c", hardware=name) for name in ("Xeon", "Epyc")]
    assert len({forecast["slim"], *own}) == 3


def test_a_stage_finds_the_same_key_from_what_its_pod_is_told_as_the_preflight_from_the_whole_spec() -> None:
    forecast = planned()
    spec = merge(CompressionJobSpec.model_validate(SPEC), None)
    stage = next(entry for entry in spec.stages if entry.name == "slim")
    told = StageInput(
        job=JobIdentity(name="flowers", uid="u"),
        kind="prune",
        name="slim",
        attempt=3,
        task=spec.task,
        seed=spec.seed,
        evaluation=spec.evaluation,
        model=spec.model,
        dataset=spec.dataset,
        output=spec.output,
        tracking=spec.tracking,
        stage=stage.model_copy(update={"runtime": None}),
        inputs=[Artifact(role="model", stage="student", key=forecast["student"])],
    )
    told = StageInput.model_validate_json(told.model_dump_json(by_alias=True))
    assert told.stage is not None
    inputs = {entry.role: entry.key for entry in told.inputs}
    assert keys.stage_key(Basis.of(told, "f"), told.stage, inputs=inputs, code="c") == forecast["slim"]
