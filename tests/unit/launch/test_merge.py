"""A site's podTemplate must land in the pod as `kubectl patch` would put it, and never break the gang."""

from typing import Any

import pytest

from kompress_api.errors import InvalidManifest
from kompress_operator.launch.merge import refuse_reserved_fields, strategic_merge

POD = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "securityContext": {"runAsNonRoot": True},
        "containers": [{"name": "worker", "image": "x", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}],
        "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}],
        "tolerations": [{"key": "one"}],
    },
}


def merged(spec: dict[str, Any]) -> dict[str, Any]:
    return strategic_merge(POD, {"spec": spec})["spec"]


@pytest.mark.parametrize(
    ("spec", "field", "result"),
    [
        ({"nodeName": "n"}, "nodeName", "n"),
        ({"securityContext": {"fsGroup": 1}}, "securityContext", {"runAsNonRoot": True, "fsGroup": 1}),
        ({"securityContext": {"runAsNonRoot": None}}, "securityContext", {}),
        ({"securityContext": {"$patch": "replace", "fsGroup": 1}}, "securityContext", {"fsGroup": 1}),
        ({"securityContext": {"$patch": "delete"}}, "securityContext", None),
        ({"tolerations": [{"key": "two"}]}, "tolerations", [{"key": "two"}]),
        ({"volumes": [{"name": "data"}]}, "volumes", [*POD["spec"]["volumes"], {"name": "data"}]),
        ({"volumes": [{"name": "tmp", "$patch": "delete"}]}, "volumes", []),
        ({"volumes": [{"$patch": "replace"}, {"name": "data"}]}, "volumes", [{"name": "data"}]),
        (
            {"volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]},
            "volumes",
            [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
        ),
        (
            {"volumes": [{"name": "tmp", "persistentVolumeClaim": {"claimName": "c"}}]},
            "volumes",
            [{"name": "tmp", "persistentVolumeClaim": {"claimName": "c"}}],
        ),
    ],
)
def test_merges_as_kubectl_does(spec: dict[str, Any], field: str, result: object) -> None:
    assert merged(spec).get(field) == result


def test_a_container_is_found_by_its_name_and_its_variables_by_theirs() -> None:
    sidecar = {"name": "logs", "image": "y"}
    containers = merged({"containers": [sidecar, {"name": "worker", "env": [{"name": "B", "value": "3"}, {"name": "C"}]}]})["containers"]
    assert containers == [
        {"name": "worker", "image": "x", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C"}]},
        sidecar,
    ]


def test_what_is_merged_stays_as_it_was() -> None:
    before = repr(POD)
    merged({"containers": [{"name": "worker", "env": [{"name": "A", "value": "9"}]}], "securityContext": {"fsGroup": 1}})
    assert repr(POD) == before


def worker(**fields: object) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "worker", **fields}]}}


@pytest.mark.parametrize(
    ("template", "path"),
    [
        (worker(command=["sh"]), "spec.containers[0].command"),
        (worker(args=["-c"]), "spec.containers[0].args"),
        (worker(env=[{"name": "A"}, {"name": "KOMPRESS_FACTORIES", "value": "os"}]), "spec.containers[0].env[1].name"),
        (worker(env=None), "spec.containers[0].env"),
        (worker(**{"$patch": "delete"}), "spec.containers[0].$patch"),
        ({"spec": {"containers": [{"$patch": "replace"}]}}, "spec.containers[0]"),
        ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0]"),
        ({"spec": {"containers": {}}}, "spec.containers"),
        ({"spec": {"restartPolicy": "OnFailure"}}, "spec.restartPolicy"),
        ({"spec": {"restartPolicy": None}}, "spec.restartPolicy"),
        ({"spec": {"subdomain": "x"}}, "spec.subdomain"),
        ({"spec": {"hostname": "x"}}, "spec.hostname"),
        ({"spec": {"$patch": "replace"}}, "spec.$patch"),
        ({"spec": []}, "spec"),
        ({"$patch": "replace"}, "$patch"),
        ({"metadata": {"labels": {"kompress.io/job": "x"}}}, "metadata.labels[kompress.io/job]"),
        ({"nodeSelector": {}}, "nodeSelector"),
    ],
)
def test_what_makes_a_pod_a_rank_is_refused_by_its_path(template: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        refuse_reserved_fields(template, "spec.runtime.podTemplate")
    assert caught.value.field == f"spec.runtime.podTemplate.{path}"


def test_a_sidecar_may_have_a_command() -> None:
    sidecar = {"name": "logs", "command": ["tail"], "env": [{"name": "KOMPRESS_X", "value": "1"}]}
    refuse_reserved_fields({"metadata": {"labels": {"team": "a"}}, "spec": {"containers": [sidecar], "priorityClassName": "high"}}, "x")
