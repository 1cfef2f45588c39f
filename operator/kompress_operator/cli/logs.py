"""`kompress logs`: the log of one pod of a stage's newest attempt."""

import json
from collections.abc import Mapping
from typing import Any

from kompress_api.contract import ENV_PROCESSES
from kompress_api.names import LABEL_ATTEMPT, LABEL_JOB, LABEL_STAGE
from kompress_api.runtime import WORKER
from kompress_operator.cli.cluster import Cluster, connect
from kompress_operator.cli.exits import fail
from kompress_operator.launch.objects import INDEX_ANNOTATION

Pod = dict[str, Any]


def logs(job: str, stage: str, rank: int, namespace: str, context: str, *, follow: bool, as_json: bool) -> None:
    """Prints lines as they come; with `as_json` one object a line."""
    from kubernetes import client

    cluster = connect(namespace, context)
    pod = pod_of_rank(newest_attempt(_pods(cluster, job, stage), job, stage), rank)
    name = pod["metadata"]["name"]
    core: Any = client.CoreV1Api(cluster.client)
    with cluster.errors():
        response = core.read_namespaced_pod_log(name, cluster.namespace, container=WORKER, follow=follow, _preload_content=False)
        for line in response:
            text = line.decode(errors="replace").rstrip("\n")
            print(json.dumps({"pod": name, "line": text}) if as_json else text, flush=True)


def newest_attempt(pods: list[Pod], job: str, stage: str) -> list[Pod]:
    """The pods of the attempt that was started last, by index; ends the command where there is none."""
    if not pods:
        what = f"stage {stage} of {job}" if stage else job
        fail(f"{what} has no pods", hint=f"kompress describe {job}: it has not started, or its pods were cleaned up")
    last = max(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], int(pod["metadata"]["labels"][LABEL_ATTEMPT])))
    same = (LABEL_STAGE, LABEL_ATTEMPT)
    found = [pod for pod in pods if all(pod["metadata"]["labels"][label] == last["metadata"]["labels"][label] for label in same)]
    return sorted(found, key=_index)


def pod_of_rank(pods: list[Pod], rank: int) -> Pod:
    """The pod that holds a rank; ranks follow the pods' indexes. Ends the command where there is none."""
    wanted = rank // processes(pods[0])
    found = next((pod for pod in pods if _index(pod) == wanted), None)
    if found is None:
        stage = pods[0]["metadata"]["labels"][LABEL_STAGE]
        fail(f"stage {stage} has no rank {rank}: it has {len(pods)} pods of {processes(pods[0])} processes")
    return found


def processes(pod: Pod) -> int:
    """Worker processes of a pod: as its launcher counts them."""
    worker = next(entry for entry in pod["spec"]["containers"] if entry["name"] == WORKER)
    asked = next((entry.get("value", "auto") for entry in worker.get("env", []) if entry["name"] == ENV_PROCESSES), "auto")
    if asked != "auto":
        return int(asked)
    limits: Mapping[str, str] = worker.get("resources", {}).get("limits", {})
    return max(1, sum(int(amount) for name, amount in limits.items() if name.endswith("/gpu")))


def _pods(cluster: Cluster, job: str, stage: str) -> list[Pod]:
    selector = f"{LABEL_JOB}={job}" + (f",{LABEL_STAGE}={stage}" if stage else "")
    found = cluster.call("GET", f"/api/v1/namespaces/{cluster.namespace}/pods", query={"labelSelector": selector})
    return list(found["items"])


def _index(pod: Pod) -> int:
    return int(pod["metadata"]["annotations"][INDEX_ANNOTATION])
