"""`make demo`: kompress on a real cluster of this machine, from nothing to a small, fast, verified model.

It starts two nodes with an S3 and an MLflow server beside them, installs the operator from its own image by Helm, applies
examples/runtime.yaml and the same examples/digits.yaml that `make run` takes, and follows the job to its end. The cluster stays up to
look around in, until `make demo-down`.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import installation
from testcluster.cluster import Cluster
from testcluster.places import REPOSITORY
from testcluster.processes import ClusterError
from testcluster.settings import Settings, host_mounts

JOB = REPOSITORY / "examples/digits.yaml"
NAME = "digits"
NAMESPACE = "default"
PATIENCE_SECONDS = 45 * 60
POLL_SECONDS = 1.0
BEGAN = time.monotonic()


def main() -> int:
    """Runs the demo; 0 when the job is Complete."""
    cluster = Cluster.up(Settings(name="demo", nodes=2, s3=True, mlflow=True, host_mounts=host_mounts()), say)
    say("building the operator's image and installing it")
    installation.install_operator(cluster)
    say("operator is ready")
    installation.install_runtime(cluster)
    installation.prepare_namespace(cluster, NAMESPACE)
    cluster.kubectl("apply", f"--namespace={NAMESPACE}", f"--filename={JOB}")
    say("applied examples/runtime.yaml and examples/digits.yaml")
    ended = None
    for status in statuses(cluster):
        say(line(status))
        ended = end(status)
    show(cluster)
    look_around(cluster)
    if ended is None:
        raise ClusterError(f"the job did not end within {PATIENCE_SECONDS // 60} minutes; it runs on")
    if ended["type"] == "Failed":
        raise ClusterError(f"the job failed: {ended['reason']}: {ended.get('message', '')}")
    return 0


def statuses(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """The job's status, each time that its line changes, until the job has ended or patience has."""
    before = None
    while time.monotonic() - BEGAN < PATIENCE_SECONDS:
        status = json.loads(cluster.kubectl("get", "compressionjob", NAME, f"--namespace={NAMESPACE}", "--output=json")).get("status", {})
        if line(status) != before:
            before = line(status)
            yield status
        if end(status):
            return
        time.sleep(POLL_SECONDS)


def end(status: dict[str, Any]) -> dict[str, Any] | None:
    """The condition that says how the job ended."""
    conditions = status.get("conditions", ())
    return next((entry for entry in conditions if entry["type"] in ("Complete", "Failed") and entry["status"] == "True"), None)


def line(status: dict[str, Any]) -> str:
    """A status in one line."""
    summary = status.get("summary", {})
    stage = f"{summary['stage']} (attempt {summary.get('attempt', 1)})" if summary.get("stage") else ""
    return "  ".join(filter(None, (status.get("phase", "Pending"), stage, summary.get("progress", ""))))


def show(cluster: Cluster) -> None:
    """The job and its pods, as anyone sees them."""
    for command in (("get", "compressionjob", NAME), ("get", "pods", "--output=wide", f"--selector=kompress.io/job={NAME}")):
        print(f"\n$ kubectl {' '.join(command)}")
        print(cluster.kubectl(*command, f"--namespace={NAMESPACE}"), end="")
    objects = cluster.s3.client().list_objects_v2(Bucket=installation.BUCKET).get("Contents", [])
    print(f"\nS3 holds {len(objects)} objects, {sum(entry['Size'] for entry in objects) / 1e6:.0f} MB, in s3://{installation.BUCKET}")


def look_around(cluster: Cluster) -> None:
    """What to type next."""
    print(f"""
The cluster stays up. To look around, in the repository's folder:

  eval "$(PYTHONPATH=tests .venv/bin/python -m testcluster --name demo env)"     kubectl and helm on PATH; KUBECONFIG, AWS_*, MLFLOW_*
  kubectl get compressionjobs                                                    one line a job
  kubectl describe compressionjob {NAME}                                         every stage, attempt, goal
  kubectl get pods,jobs                                                          what the stages ran as
  kubectl logs job/{NAME}-adapt-1                                                a stage's log
  kubectl logs --namespace {installation.NAMESPACE} deployment/kompress                     the operator's
  find {cluster.folder}/s3/{installation.BUCKET}                     the objects in S3, as files
  {cluster.mlflow.uri}/?workflowType=machine_learning                       MLflow: parameters, metrics, models

To take it down:  make demo-down""")


def say(text: str) -> None:
    """One line of what happens, with the seconds since the start."""
    print(f"{time.monotonic() - BEGAN:6.1f} s  {text}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ClusterError as error:
        sys.exit(f"\nerror: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; what was started stays up: take it down with `make demo-down`")
