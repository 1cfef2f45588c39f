"""The images of the Dockerfiles, run for real: the operator that the chart installs, and a job whose pods are the jobs image and share
a folder of their node.

PyTorch is left out of the jobs image here (its build argument WITHOUT; 5 of 6 GB) and comes from the machine in a volume, as on
nodes that bring their own.
"""

import importlib.metadata
import json
import os
import re
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from ruamel.yaml import YAML

import installation
from cluster.operating import Job, eventually
from kompress_api.contract import CACHE_FOLDER
from perf.engine.images import write_digits
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


def test_job_runs_from_the_jobs_image_and_copies_its_data_to_the_node_once(operator: Connection, team: str, tmp_path: Path) -> None:
    assert isinstance(operator, Cluster), "the image is loaded into nodes of `python -m testcluster`"
    operator.load_image(images.build(REPOSITORY / "jobs/Dockerfile", JOBS_IMAGE, {"WITHOUT": " ".join(sorted(TORCH))}))
    # A runtime of its own, as a job can add to a podTemplate of the platform's, but not take away its runtimeClassName.
    runtime = YAML(typ="safe").load(installation.RUNTIME.read_text())
    runtime["metadata"]["name"] = team
    node = tmp_path / "node"
    node.mkdir()
    os.chown(node, 65532, 65532)
    runtime["spec"]["runtime"] = {"image": JOBS_IMAGE, "podTemplate": {"spec": with_cache(torch_of_the_machine(), node)}}
    operator.kubectl("apply", "--filename=-", stdin=json.dumps(runtime))
    images_of_digits = write_digits(tmp_path / "digits", side=32, each=24, suffix=".png")
    files = [path for path in sorted(images_of_digits.rglob("*")) if path.is_file()]
    for path in files:
        operator.s3.client().upload_file(str(path), installation.BUCKET, f"{team}-data/{path.relative_to(images_of_digits)}")
    data = {"source": f"s3://{installation.BUCKET}/{team}-data", "format": "imagefolder"}
    job = Job(operator, team, "imaged")
    job.create(
        runtimeRef={"name": team},
        model={"source": "timm://test_resnet"},
        dataset=data | {name: runtime["spec"]["output"][name] for name in ("endpoint", "region", "credentialsSecret")},
        output={"uri": f"s3://{installation.BUCKET}/{team}"},  # nothing to reuse: the stage must run
        tracking=None,
        runtime=None,
        stages=[{"name": "adapt", "fineTune": {"epochs": 10, "batchSize": 16, "learningRate": 3e-3}}],
    )
    eventually("the job has ended", lambda: job.phase in ("Complete", "Failed"), 600)
    assert job.phase == "Complete", json.dumps(job.status, indent=1)

    pods = json.loads(operator.kubectl("get", "pods", f"--namespace={team}", "--output=json"))["items"]
    assert {pod["metadata"]["labels"]["kompress.io/stage"] for pod in pods} == {"preflight", "adapt", "report"}
    assert {pod["status"]["containerStatuses"][0]["image"] for pod in pods} == {JOBS_IMAGE}
    assert not any("runtimeClassName" in pod["spec"] or "runAsUser" in pod["spec"]["securityContext"] for pod in pods)
    assert len(list(node.rglob("*.png"))) == len(files), "of the preflight and of the stage together, each file once"
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


def with_cache(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same, with a folder of the node for copies of data."""
    spec["volumes"].append({"name": "cache", "hostPath": {"path": str(folder), "type": "Directory"}})
    spec["containers"][0]["volumeMounts"].append({"name": "cache", "mountPath": CACHE_FOLDER})
    return spec


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
