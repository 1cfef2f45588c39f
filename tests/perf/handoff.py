"""Hand-off on the cluster: what lies between the commit of a stage and the first step of the next one.

A job of two stages; of the second only the first step is awaited. The commit is the instant at which the S3 server's own file of the
manifest was written, the first step that of the worker's first progress event, read where the node keeps the pod's /tmp: both
to the millisecond, by the one clock of this machine, and without anybody asking the cluster meanwhile. The peer is a Job like the
first stage's, with a bare torchrun script in it that ends with its first batch; its time starts when the Job is there.
"""

import copy
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import installation
from cluster.operating import Job, eventually
from perf.recorder import Goal, Result, pairs
from testcluster import processes
from testcluster.cluster import Cluster, running
from testcluster.settings import Settings, host_mounts

SCRIPT = Path(__file__).parent / "scripts" / "handoff_bare.py"
NAMESPACE = "default"
PROCESSES = 2
PATIENCE = 600.0
MODEL = {"source": "timm://resnet10t", "arguments": {"channels": [48, 96, 192, 384], "stem_width": 16}}
"""The example's student."""
TRAINING = {"epochs": 1, "batchSize": 64, "learningRate": 1e-3}
LONG = TRAINING | {"epochs": 1000}


def results() -> Iterator[Result]:
    """The scenario, with a cluster of its own. Needs root, and programs of the test cluster."""
    owner = processes.identity(os.getpid()) or ""
    with running(Settings(name="perf", nodes=2, s3=True, mlflow=True, host_mounts=host_mounts(), owner=owner)) as cluster:
        installation.install_operator(cluster)
        installation.install_runtime(cluster)
        installation.prepare_namespace(cluster, NAMESPACE)
        assert cluster.mlflow, "waits until the server answers"
        yield Scenario(cluster).measured()


class Scenario:
    """Jobs that differ in their seed, so that none reuses another's stage."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.rounds = 0
        self.template: dict[str, Any] = {}
        """The Job of a first stage, as the operator made it."""
        self.bundle = ""
        """Prefix of what the last first stage committed, in the bucket."""

    def measured(self) -> Result:
        self.ours()  # the first pods unpack the image, and the peer needs a bundle
        what = "hand-off on the cluster, commit of a stage to the first step of the next"
        return Result(what, "s", "empty pod + bare torchrun script to its first batch", Goal(1.5, "at_most"), pairs(self.ours, self.bare))

    def ours(self) -> float:
        """Seconds from the first stage's commit to the second one's first step."""
        self.rounds += 1
        job = Job(self.cluster, NAMESPACE, f"handoff-{self.rounds}")
        stages = [{"name": "first", "fineTune": TRAINING}, {"name": "second", "fineTune": LONG}]
        job.create(
            output=None,
            tracking=None,
            seed=self.rounds,
            model=MODEL,
            dataset={"source": "builtin://digits", "imageSize": 32},
            runtime={"processesPerNode": PROCESSES},
            stages=stages,
        )
        eventually("the first stage trains", lambda: self.first_step(job.name, "first"), PATIENCE)
        self.template = job.get("job", f"{job.name}-first-1")
        folder = eventually("the first stage has committed", lambda: self.committed(job.manifest["metadata"]["uid"]), PATIENCE)
        step = eventually("the second stage trains", lambda: self.first_step(job.name, "second"), PATIENCE)
        self.bundle = str(folder.relative_to(self.cluster.folder / "s3" / installation.BUCKET))
        job.kubectl("delete", "compressionjob", job.name)
        job.kubectl("delete", "pods", f"--selector=kompress.io/job={job.name}", "--grace-period=1", "--ignore-not-found")
        return step - (folder.parent / "manifest.json").stat().st_mtime

    def bare(self) -> float:
        """Seconds from the start of a Job like the first stage's to the first batch of the script in it."""
        self.rounds += 1
        name = f"bare-{self.rounds}"
        job = Job(self.cluster, NAMESPACE, name)
        job.kubectl("create", "--filename=-", stdin=json.dumps(self.peer(name)))
        began = time.time()
        eventually("its pod is there", lambda: job.get("pods", f"--selector=job-name={name}")["items"])
        said = job.kubectl("logs", f"job/{name}", "--follow", f"--pod-running-timeout={PATIENCE:.0f}s")  # until it has ended, well or not
        job.kubectl("delete", "job", name)
        told = next((line.split()[-1] for line in said.splitlines() if line.startswith("first batch at")), None)
        if told is None:
            raise RuntimeError(f"the bare script did not get to its first batch:\n{said}")
        return float(told) - began

    def peer(self, name: str) -> dict[str, Any]:
        """The first stage's Job with another command: the same image, mounts, resources and processes."""
        pod = copy.deepcopy(self.template["spec"]["template"]["spec"])
        (worker,) = pod["containers"]
        worker["command"] = ["python", "-m", "torch.distributed.run", f"--nproc-per-node={PROCESSES}", str(SCRIPT)]
        worker["command"] += [self.cluster.s3.endpoint, installation.BUCKET, self.bundle]
        worker["env"] = [entry for entry in worker["env"] if not entry["name"].startswith("KOMPRESS_")]
        worker["env"] += [{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "GOMP_SPINCOUNT", "value": "0"}]
        del pod["subdomain"]
        spec = {name: self.template["spec"][name] for name in ("completionMode", "completions", "parallelism", "backoffLimit")}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {**spec, "template": {"spec": pod}}}

    def first_step(self, job: str, stage: str) -> float | None:
        """When the first step of a stage's first attempt ended, from the events in its pod's /tmp."""
        path = f"node*/var-lib/kubelet/pods/*/volumes/kubernetes.io~empty-dir/tmp/{job}-{stage}-1-0/events.jsonl"
        for file in self.cluster.folder.glob(path):
            for line in file.read_text().splitlines():
                event = json.loads(line)
                if event["type"] == "progress" and event["text"].startswith("epoch"):
                    return float(event["time"]) / 1000
        return None

    def committed(self, uid: str) -> Path | None:
        """The folder of what a job's first attempt committed, in the S3 server's own files."""
        root = self.cluster.folder / "s3" / installation.BUCKET
        return next((path for path in root.glob(f"artifacts/artifacts/*/{uid}-1") if (path.parent / "manifest.json").exists()), None)
