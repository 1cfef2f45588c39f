"""What a laptop makes of a manifest that was written for a cluster."""

import pathlib

import pytest

import manifests
from kompress_api.manifest import parse_spec
from kompress_operator.local.backend import gpus, merged_locally
from kompress_operator.local.defaults import ignored, mlflow_command


def test_results_and_metrics_lie_in_the_jobs_own_folder(tmp_path: pathlib.Path) -> None:
    merged = merged_locally(parse_spec(manifests.good()["spec"] | {"maxParallelStages": 4}), tmp_path)
    assert (merged.output.uri, merged.tracking.uri) == (f"file://{tmp_path}/output", f"sqlite:///{tmp_path}/mlflow.db")
    assert merged.max_parallel_stages == 1
    assert mlflow_command(merged) == f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db"


def test_places_of_the_manifest_hold_here_too(tmp_path: pathlib.Path) -> None:
    places = {"output": {"uri": "s3://models/a"}, "tracking": {"uri": "http://mlflow:5000", "externalUri": "https://mlflow.example"}}
    merged = merged_locally(parse_spec(manifests.good()["spec"] | places), tmp_path)
    assert merged.output.uri == "s3://models/a"
    assert mlflow_command(merged) == "https://mlflow.example/#/experiments?workflowType=machine_learning"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, []),
        ({"runtimeRef": {"name": "a100"}}, ["spec.runtimeRef: a100 is a cluster's; here the defaults of this machine hold"]),
        (
            {"maxParallelStages": 2},
            ["spec.maxParallelStages: 2 is ignored, stages run one at a time so that latency is honest"],
        ),
        (
            {"runtime": {"nodes": 2, "resources": {"limits": {"cpu": 1}}, "nodeSelector": {"a": "b"}}},
            [
                "spec.runtime.resources is ignored: stages run as processes of this machine, with all that it has",
                "spec.runtime.nodeSelector is ignored: stages run as processes of this machine, with all that it has",
            ],
        ),
        (
            {"output": {"uri": "s3://models/a", "credentialsSecret": "s3"}},
            ["spec.output.credentialsSecret: s3 is a cluster's; your own environment or AWS profile is used"],
        ),
    ],
)
def test_what_is_ignored_is_said(spec: dict[str, object], said: list[str]) -> None:
    assert list(ignored(parse_spec(manifests.good()["spec"] | spec))) == said


def test_gpus_are_counted_without_their_control_devices(tmp_path: pathlib.Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert gpus(tmp_path) == 2
