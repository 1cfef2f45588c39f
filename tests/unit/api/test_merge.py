"""The spec that runs: the job's own fields win, the platform's stand below, nothing is left open."""

import json

import pytest

import manifests
from kompress_api.errors import InvalidManifest, NoOutput, SpecTooLarge
from kompress_api.job import CompressionJobSpec
from kompress_api.manifest import parse_spec
from kompress_api.merge import BUILT_IN, merge, refuse_uncovered_files, spec_digest
from kompress_api.runtime import ClusterCompressionRuntimeSpec, RestartPolicy, Runtime, SharedSpec

PLATFORM = {
    "output": {"uri": "s3://models/all", "endpoint": "http://s3:9000", "credentialsSecret": "s3"},
    "tracking": {"uri": "http://mlflow:5000"},
    "runtime": {"image": "registry.example/jobs:1", "resources": {"limits": {"cpu": 2, "memory": "4Gi"}}, "tolerations": [{"key": "gpu"}]},
}


def job(**spec: object) -> CompressionJobSpec:
    return parse_spec(manifests.good()["spec"] | spec)


def platform(**spec: object) -> ClusterCompressionRuntimeSpec:
    return ClusterCompressionRuntimeSpec.model_validate(PLATFORM | spec)


def test_the_jobs_own_fields_win_key_by_key_and_lists_whole() -> None:
    merged = merge(job(runtime={"resources": {"limits": {"cpu": 8}}, "tolerations": []}, output={"uri": "s3://mine/x"}), platform())
    assert merged.runtime.resources.limits == {"cpu": 8, "memory": "4Gi"}
    assert merged.runtime.tolerations == []
    assert merged.output.dump() == PLATFORM["output"] | {"uri": "s3://mine/x"}


def test_a_stage_overrides_the_runtime() -> None:
    spec = manifests.good()["spec"]
    spec["stages"][0]["runtime"] = {"nodes": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}}
    merged = merge(parse_spec(spec), platform())
    first, second = (merged.runtime_of(stage) for stage in merged.stages[:2])
    assert (first.nodes, first.resources.limits) == (2, {"cpu": 2, "memory": "4Gi", "nvidia.com/gpu": 1})
    assert (second.nodes, second.resources.limits) == (1, {"cpu": 2, "memory": "4Gi"})


def test_an_elastic_gang_without_nodes_begins_with_the_nearest_number() -> None:
    spec = manifests.good()["spec"] | {"runtime": {"elastic": {"minNodes": 2, "maxNodes": 4}}}
    spec["stages"][0]["runtime"] = {"elastic": {"minNodes": 3, "maxNodes": 3}}
    merged = merge(parse_spec(spec), platform())
    assert [merged.runtime_of(stage).nodes for stage in merged.stages[:2]] == [3, 2]


def test_a_stage_that_leaves_the_bounds_of_its_job_is_refused() -> None:
    spec = manifests.good()["spec"] | {"runtime": {"elastic": {"minNodes": 2, "maxNodes": 4}}}
    spec["stages"][0]["runtime"] = {"nodes": 5}
    with pytest.raises(InvalidManifest, match="nodes must lie between") as caught:
        merge(parse_spec(spec), platform())
    assert caught.value.field == "stage adapt: runtime"


@pytest.mark.parametrize("missing", ["output", "tracking", "runtime"])
def test_a_place_that_nobody_names_is_an_error_with_its_path(missing: str) -> None:
    with pytest.raises(NoOutput) as caught:
        merge(job(), platform(**{missing: None}))
    assert caught.value.field == {"runtime": "spec.runtime.image"}.get(missing, f"spec.{missing}")


def test_built_in_defaults_stand_in_the_descriptions() -> None:
    """`kubectl explain` is where users read defaults that the CRD itself must not hold."""
    told = [(SharedSpec, BUILT_IN), (Runtime, BUILT_IN["runtime"]), (RestartPolicy, BUILT_IN["restartPolicy"])]
    for model, defaults in told:
        for field in model.model_fields.values():
            value = defaults.get(str(field.alias))
            if isinstance(value, int | str) and value != "":
                assert f"Built-in default: {value}" in str(field.description)


def test_the_digest_is_blind_to_what_may_change_and_to_how_numbers_are_written() -> None:
    one = merge(job(suspend=True, ttlSecondsAfterFinished=5), platform())
    two = merge(job(goals=[{"metric": "accuracy", "maxDegradation": 0.01}, {"metric": "latencyP50Ms", "minImprovement": 5.0}]), platform())
    assert spec_digest(one) == spec_digest(two)
    assert spec_digest(merge(job(seed=1), platform())) != spec_digest(two)


def test_a_spec_over_its_limit_is_refused() -> None:
    arguments = {f"argument{i}": "x" * 900 for i in range(60)}
    with pytest.raises(SpecTooLarge):
        merge(job(model={"source": "timm://a", "arguments": arguments}), platform())


def test_a_folder_needs_a_volume_on_a_cluster() -> None:
    mount = {"spec": {"containers": [{"name": "worker", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}
    files = {"dataset": {"source": "file:///data/flowers", "format": "imagefolder"}}
    refuse_uncovered_files(merge(job(**files, runtime={"podTemplate": mount}), platform()))
    with pytest.raises(NoOutput, match="file:///data/flowers") as caught:
        refuse_uncovered_files(merge(job(**files), platform()))
    assert caught.value.field == "spec.dataset.source"


def test_preflight_and_report_get_the_spec_without_pod_templates() -> None:
    merged = merge(job(runtime={"podTemplate": {"metadata": {"labels": {"a": "b"}}}}), platform())
    assert "podTemplate" not in json.dumps(merged.without_pod_templates())
