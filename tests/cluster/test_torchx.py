"""Our objects before a real API server, and `torchx run -s kubernetes_job` as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import manifests
from kompress_api.contract import JobIdentity
from kompress_api.manifest import parse_spec
from kompress_api.merge import merge
from kompress_api.runtime import ClusterCompressionRuntimeSpec
from kompress_api.status import CompressionJobStatus
from kompress_operator.launch.app import build_app
from kompress_operator.launch.inputs import build_input
from kompress_operator.launch.merge import MERGE_KEYS, RETAIN_KEYS
from kompress_operator.launch.objects import Placement, build_objects
from testcluster.cluster import Connection

TEMPLATE: dict[str, Any] = {
    "metadata": {"annotations": {"team": "a"}},
    "spec": {
        "securityContext": {"runAsUser": 1000},
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "containers": [{"name": "worker", "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"a": "b"}}}
        ],
    },
}


def made(namespace: str, stage: str, reuse: bool = False) -> list[dict[str, Any]]:
    platform = {
        "output": {"uri": "s3://models/all", "credentialsSecret": "s3"},
        "tracking": {"uri": "http://mlflow:5000", "credentialsSecret": "mlflow"},
        "runtime": {
            "image": "jobs:1",
            "nodes": 3,
            "elastic": {"minNodes": 2, "maxNodes": 4},
            "resources": {"limits": {"nvidia.com/gpu": 1, "cpu": 4, "memory": "8Gi"}},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "nodeSelector": {"zone": "a"},
            "podTemplate": TEMPLATE,
        },
    }
    spec = merge(parse_spec(manifests.good()["spec"]), ClusterCompressionRuntimeSpec.model_validate(platform))
    job = JobIdentity(name="good", namespace=namespace, uid="u1")
    app = build_app(spec, build_input(job, spec, CompressionJobStatus(), stage, 1, reuse=reuse))
    return list(build_objects(app, Placement(name=app.name, namespace=namespace, service="good", selector={"kompress.io/job": "good"})))


@pytest.mark.parametrize(("stage", "reuse", "pods"), [("adapt", False, 3), ("preflight", False, 1), ("adapt", True, 1)])
def test_a_stage_starts_in_a_namespace_that_enforces_the_restricted_level(
    control_plane: Connection, namespace: str, stage: str, reuse: bool, pods: int
) -> None:
    """Nothing of ours is dropped in silence (`--validate=strict`), nothing is refused when the pods are made."""
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    for entry in made(namespace, stage, reuse):
        control_plane.kubectl("create", "--validate=strict", "--filename=-", stdin=json.dumps(entry))
    name = f"good-{stage}-1"
    control_plane.kubectl("wait", f"job/{name}", f"--namespace={namespace}", f"--for=jsonpath={{.status.active}}={pods}", "--timeout=60s")
    found = json.loads(
        control_plane.kubectl("get", "pods", f"--namespace={namespace}", f"--selector=batch.kubernetes.io/job-name={name}", "--output=json")
    )
    assert sorted(pod["spec"]["hostname"] for pod in found["items"]) == [f"{name}-{index}" for index in range(pods)]
    assert {pod["spec"]["subdomain"] for pod in found["items"]} == {"good"}


def test_the_table_of_merge_keys_is_the_api_servers(control_plane: Connection) -> None:
    definitions = json.loads(control_plane.kubectl("get", "--raw", "/openapi/v2"))["definitions"]
    found: dict[str, str] = {}
    retained: set[str] = set()
    pending, seen = ["io.k8s.api.core.v1.PodTemplateSpec"], set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        for field, schema in definitions[name].get("properties", {}).items():
            pending += [reference.rpartition("/")[2] for part in (schema, schema.get("items", {})) if (reference := part.get("$ref"))]
            if key := schema.get("x-kubernetes-patch-merge-key"):
                assert found.setdefault(field, key) == key, f"{field} has two merge keys"
                if "retainKeys" in schema["x-kubernetes-patch-strategy"]:
                    retained.add(field)
    assert found == dict(MERGE_KEYS)
    assert retained == RETAIN_KEYS


def torchx(control_plane: Connection, *arguments: str) -> str:
    environment = {**os.environ, **control_plane.environment}
    command = [str(Path(sys.executable).with_name("torchx")), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def jobs(control_plane: Connection, namespace: str) -> list[dict[str, Any]]:
    return json.loads(control_plane.kubectl("get", "jobs,services", f"--namespace={namespace}", "--output=json"))["items"]  # type: ignore[no-any-return]


def test_torchx_runs_lists_describes_cancels_and_deletes(control_plane: Connection, namespace: str, tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text("spec: {securityContext: {runAsUser: 1000}, priorityClassName: system-node-critical}\n")
    options = f"namespace={namespace},pod_template={template}"
    run = ("run", "-s", "kubernetes_job", "-cfg", options)
    component = ("dist.torchrun", "-j", "2x1", "--script", "train_it.py", "--image", "torch:1")

    assert "kind: Job" in torchx(control_plane, *run, "--dryrun", *component)
    assert jobs(control_plane, namespace) == []

    handle = torchx(control_plane, *run, *component).split()[-1]
    job, service = jobs(control_plane, namespace)
    assert job["spec"]["template"]["spec"]["priorityClassName"] == "system-node-critical"
    assert service["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    name = job["metadata"]["name"]
    assert handle == f"kubernetes_job://torchx/{namespace}:{name}"

    control_plane.kubectl("wait", f"job/{name}", f"--namespace={namespace}", "--for=jsonpath={.status.active}=2", "--timeout=60s")
    described = torchx(control_plane, "status", handle)
    assert "*trainit[0]:PENDING" in described and " trainit[1]:PENDING" in described
    listed = torchx(control_plane, "list", "-s", "kubernetes_job", "-cfg", f"namespace={namespace}")
    assert [line.split() for line in listed.splitlines()[2:]] == [[handle, "PENDING"]]

    torchx(control_plane, "cancel", handle)
    control_plane.kubectl("wait", f"job/{name}", f"--namespace={namespace}", "--for=condition=Suspended", "--timeout=60s")
    assert "CANCELLED" in torchx(control_plane, "status", handle)

    torchx(control_plane, "delete", handle)
    control_plane.kubectl("wait", f"job/{name}", f"service/{name}", f"--namespace={namespace}", "--for=delete", "--timeout=60s")
