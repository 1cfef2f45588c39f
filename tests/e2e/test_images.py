"""The images of the Dockerfiles, run for real: the operator that the chart installs, and a job whose pods are the jobs image.

PyTorch is left out of the jobs image here (its build argument WITHOUT; 5 of 6 GB) and comes from the machine in a volume, as on
nodes that bring their own.
"""

import importlib.metadata
import json
import re
import sysconfig
from collections.abc import Iterable
from typing import Any

from packaging.requirements import Requirement
from ruamel.yaml import YAML

import installation
from testcluster import images
from testcluster.cluster import Cluster, Connection
from testcluster.places import REPOSITORY

JOBS_IMAGE = "kompress.test/jobs:built"
TORCH = {"torch", "torchvision"}
INSPECT = """
import importlib.metadata, json, os
try:
    open("/opt/kompress/new", "w")
    writable = True
except OSError:
    writable = False
versions = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
print(json.dumps({"user": os.getuid(), "writable": writable, "versions": versions}))
"""


def test_operator_runs_locked_down_from_an_image_of_the_lock(operator: Connection) -> None:
    pod = ("deployment/kompress", f"--namespace={installation.NAMESPACE}")
    said = json.loads(operator.kubectl("exec", *pod, "--", "python", "-c", INSPECT))
    assert said["user"] == 65532
    assert not said["writable"]
    assert not_of_the_lock(said["versions"]) == {}
    assert {"kopf", "kubernetes"} <= said["versions"].keys()
    assert not {"torch", "mlflow", "boto3"} & said["versions"].keys()


def test_job_runs_from_the_jobs_image(operator: Connection, team: str) -> None:
    assert isinstance(operator, Cluster), "the image is loaded into nodes of `python -m testcluster`"
    operator.load_image(images.build(REPOSITORY / "jobs/Dockerfile", JOBS_IMAGE, {"WITHOUT": " ".join(sorted(TORCH))}))
    # A runtime of its own, as a job can add to a podTemplate of the platform's, but not take away its runtimeClassName.
    runtime = YAML(typ="safe").load(installation.RUNTIME.read_text())
    runtime["metadata"]["name"] = team
    runtime["spec"]["runtime"] = {"image": JOBS_IMAGE, "podTemplate": {"spec": torch_of_the_machine()}}
    operator.kubectl("apply", "--filename=-", stdin=json.dumps(runtime))
    job = {
        "apiVersion": "kompress.io/v1alpha1",
        "kind": "CompressionJob",
        "metadata": {"name": "imaged"},
        "spec": {
            "runtimeRef": {"name": team},
            "task": "image-classification",
            "model": {"source": "timm://test_resnet"},
            "dataset": {"source": "builtin://digits", "imageSize": 32},
            "output": {"uri": f"s3://{installation.BUCKET}/{team}"},  # nothing to reuse: the stage must run
            "stages": [{"name": "adapt", "fineTune": {"epochs": 1, "batchSize": 64}}],
        },
    }
    operator.kubectl("apply", f"--namespace={team}", "--filename=-", stdin=json.dumps(job))
    operator.kubectl("wait", "compressionjob/imaged", f"--namespace={team}", "--for=condition=Complete", "--timeout=600s")

    pods = json.loads(operator.kubectl("get", "pods", f"--namespace={team}", "--output=json"))["items"]
    assert {pod["metadata"]["labels"]["kompress.io/stage"] for pod in pods} == {"preflight", "adapt", "report"}
    assert {pod["status"]["containerStatuses"][0]["image"] for pod in pods} == {JOBS_IMAGE}
    assert not any("runtimeClassName" in pod["spec"] or "runAsUser" in pod["spec"]["securityContext"] for pod in pods)
    operator.kubectl("delete", "clustercompressionruntime", team)


def not_of_the_lock(versions: dict[str, str]) -> dict[str, str]:
    """What is installed, other than kompress itself, at a version that the lock does not name."""
    lock = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE))
    found = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in versions.items()}
    return {name: version for name, version in found.items() if name != "kompress" and lock.get(name) != version}


def torch_of_the_machine() -> dict[str, Any]:
    """The part of a pod's spec that lays this environment's PyTorch, and what only it needs, beside the image's libraries."""
    kept = closure({"kompress[jobs]"}, without=TORCH)
    names = {path.parts[0] for name in closure(TORCH, without=set()) - kept for path in importlib.metadata.files(name) or ()} - {".."}
    mounts = [{"name": "torch", "mountPath": f"/opt/torch/{name}", "subPath": name, "readOnly": True} for name in sorted(names)]
    source = {"name": "torch", "hostPath": {"path": sysconfig.get_path("purelib"), "type": "Directory"}}
    environment = [{"name": "PYTHONPATH", "value": "/opt/code:/opt/torch"}]
    return {"volumes": [source], "containers": [{"name": "worker", "volumeMounts": mounts, "env": environment}]}


def closure(roots: Iterable[str], without: set[str]) -> set[str]:
    """The installed distributions that the roots need, themselves included."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        wanted = waiting.pop()
        if wanted.name in without or str(wanted) in seen:
            continue
        seen.add(str(wanted))
        found.add(wanted.name)
        for extra in wanted.extras or {""}:
            needed = map(Requirement, importlib.metadata.requires(wanted.name) or ())
            waiting += [entry for entry in needed if not entry.marker or entry.marker.evaluate({"extra": extra})]
    return found
