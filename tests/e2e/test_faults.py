"""What goes wrong under training jobs on real nodes: storage that is away, evicted and killed pods, a killed operator, a suspension, a
lost node that comes back. Every job ends complete, with one artifact, and its status tells each attempt's end as it was.
"""

import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import installation
from cluster.operating import Job, eventually
from testcluster import nodes, servers
from testcluster.cluster import Cluster, Connection
from testcluster.settings import Node

LONG = 300.0
"""Patience for what takes the start of a training, or the rest of it, on two busy cores."""
MODEL = {"source": "timm://test_resnet"}
KNOCKS = 10
"""Requests that fail while S3 is away: each is tried again after a growing pause, so these are several tries of several requests."""


def create(job: Job, epochs: int, **runtime: object) -> None:
    """One stage of 90 short steps an epoch, with an artifact of its own, and checkpoints all the time."""
    training = {"epochs": epochs, "batchSize": 16, "learningRate": 1e-3, "checkpoint": {"everySteps": 5}}
    job.create(
        model=MODEL,
        output={"uri": f"s3://{installation.BUCKET}/{job.namespace}"},
        tracking=None,
        dataset={"source": "builtin://digits", "imageSize": 32},
        runtime=runtime,
        restartPolicy={"maxRestarts": 1, "backoffSeconds": 0},
        stages=[{"name": "adapt", "fineTune": training}],
    )


def objects(job: Job, below: str) -> list[str]:
    """Keys of what the job has in its output, there cut off."""
    prefix = f"{job.namespace}/{below}/"
    pages = job.connection.s3.client().get_paginator("list_objects_v2").paginate(Bucket=installation.BUCKET, Prefix=prefix)
    return [entry["Key"].removeprefix(prefix) for page in pages for entry in page.get("Contents", [])]


def newest_checkpoint(job: Job, attempt: int) -> int:
    """Step of the newest one that an attempt has committed, 0 before the first."""
    found = (re.fullmatch(rf".+-{attempt}/step-(\d+)/manifest\.json", key) for key in objects(job, "checkpoints"))
    return max((int(match[1]) for match in found if match), default=0)


def wait_until_it_trains(job: Job, attempt: int, pods: int, after: int = 0) -> list[dict[str, Any]]:
    """All pods of an attempt run, and it has committed a checkpoint beyond that step."""

    def running() -> list[dict[str, Any]]:
        found = [pod for pod in job.pods("adapt", attempt) if pod["status"]["phase"] == "Running"]
        return found if len(found) == pods else []

    found = eventually(f"{pods} pods of attempt {attempt} run", running, LONG)
    eventually(f"attempt {attempt} has a new checkpoint", lambda: newest_checkpoint(job, attempt) > after, LONG)
    return found


def wait_for_the_end(job: Job) -> list[dict[str, Any]]:
    """The job is complete; the attempts of its stage."""
    eventually("the job has ended", lambda: job.phase in ("Complete", "Failed"), LONG)
    status = job.status
    assert status["phase"] == "Complete", json.dumps(status, indent=1)
    return list(job.stage("adapt")["attempts"])


def assert_one_whole_artifact(job: Job) -> None:
    """One commit, whose files are all there and as it says, and nothing of anybody else."""
    keys = objects(job, "artifacts")
    (commit,) = [key for key in keys if key.endswith("/manifest.json")]
    client = job.connection.s3.client()

    def content(key: str) -> bytes:
        return bytes(client.get_object(Bucket=installation.BUCKET, Key=f"{job.namespace}/artifacts/{key}")["Body"].read())

    whole = content(commit)
    manifest, folder = json.loads(whole), commit.removesuffix("manifest.json")
    files = {f"{folder}{manifest['folder']}/{file['path']}": file["sha256"] for file in manifest["files"]}
    assert {key: hashlib.sha256(content(key)).hexdigest() for key in keys if key != commit} == files
    assert job.stage("adapt")["result"]["digest"] == f"sha256:{hashlib.sha256(whole).hexdigest()}"


@contextlib.contextmanager
def s3_away(cluster: Cluster) -> Iterator[Callable[[], int]]:
    """The S3 server is killed and its port hangs up on everybody; tells how many have come."""
    ip, port = cluster.settings.ip, cluster.settings.ports["s3"]
    cluster.processes.kill("s3")
    callers: list[object] = []

    def hang_up(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                caller, address = listener.accept()
                callers.append(address)
                caller.close()

    try:
        with socket.create_server((ip, port)) as listener:
            threading.Thread(target=hang_up, args=(listener,), daemon=True).start()
            yield lambda: len(callers)
            listener.shutdown(socket.SHUT_RDWR)
    finally:
        servers.start_s3(cluster.folder, cluster.processes, ip, port)


@contextlib.contextmanager
def cut_off(cluster: Cluster, node: Node) -> Iterator[Callable[[], None]]:
    """The node loses its way to the API server, and time stands still on it until the caller lets it run on, still cut off: so what is
    on it can neither end before the cluster has given it up, nor be ended by it.
    """
    api = ("--destination", cluster.settings.ip, "--protocol", "tcp", "--dport", cluster.settings.ports["api"])
    cluster.on_node(node.index, "iptables", "--insert", "OUTPUT", *api, "--jump", "DROP")
    try:
        cluster.stop_node(node.index, "freeze")
        yield lambda: nodes.reconnect(node)
    finally:
        cluster.on_node(node.index, "iptables", "--delete", "OUTPUT", *api, "--jump", "DROP")
        cluster.start_node(node.index)


def launchers(node: Node) -> list[int]:
    """Pids of the stages' launchers and workers on a node."""
    found = []
    for pid in nodes.members(node):
        with contextlib.suppress(OSError):
            if b"kompress_jobs" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def away_from_the_operator(operator: Connection) -> dict[str, object]:
    """Pods rather go to the other node: the operator shall not be lost together with them."""
    kubectl = ("get", "pods", f"--namespace={installation.NAMESPACE}", "--output=jsonpath={.items[*].spec.nodeName}")
    other = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": operator.kubectl(*kubectl).split()}
    preferred = [{"weight": 100, "preference": {"matchExpressions": [other]}}]
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def test_a_gang_survives_an_outage_an_eviction_a_kill_and_a_suspension_without_an_operator(operator: Connection, team: str) -> None:
    assert isinstance(operator, Cluster), "stopping the S3 server needs a cluster of `python -m testcluster`"
    job = Job(operator, team)
    create(job, epochs=7, nodes=2, processesPerNode=1)

    pods = wait_until_it_trains(job, 1, pods=2)
    with s3_away(operator) as knocks:
        eventually("the job misses S3", lambda: knocks() >= KNOCKS, LONG)
    wait_until_it_trains(job, 1, pods=2, after=newest_checkpoint(job, 1))
    assert [attempt["outcome"] for attempt in job.stage("adapt")["attempts"]] == [""], "an outage of storage fails nothing"

    evicted = pods[1]["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": evicted, "namespace": team}}
    operator.kubectl("create", "--raw", f"/api/v1/namespaces/{team}/pods/{evicted}/eviction", "-f", "-", stdin=json.dumps(eviction))

    pods = wait_until_it_trains(job, 2, pods=2)
    first = job.wait_for_end("adapt", 1)
    assert (first["outcome"], first["pod"], first["spentRestart"]) == ("Evicted", evicted, False)
    job.kubectl("exec", pods[0]["metadata"]["name"], "--", "pkill", "-9", "-f", "kompress_jobs.pod.worker")

    wait_until_it_trains(job, 3, pods=2)
    second = job.wait_for_end("adapt", 2)
    assert (second["rank"], second["pod"], second["exitCode"]) == (0, pods[0]["metadata"]["name"], 137)
    assert "SIGKILL" in second["message"], "its peer's aborted collective is no cause"
    assert (second["spentRestart"], job.status["restarts"]) == (True, 1)
    operator.kubectl("delete", "pods", "--all", f"--namespace={installation.NAMESPACE}", "--grace-period=0", "--force")
    job.patch({"suspend": True})
    job.kubectl("wait", "--for=condition=Suspended", "compressionjob/flowers", "--timeout=180s")
    assert job.pods("adapt", 3) == []
    job.patch({"suspend": False})

    attempts = wait_for_the_end(job)
    assert [attempt["outcome"] for attempt in attempts][2:] == ["Cancelled", "Succeeded"]
    status = job.status
    assert status["restarts"] == 1
    assert {entry["name"]: len(entry["attempts"]) for entry in status["stages"]} == {"preflight": 1, "adapt": 4, "report": 1}
    assert_one_whole_artifact(job)


def test_an_attempt_that_is_cut_off_and_runs_on_beside_its_successor_does_no_harm(operator: Connection, team: str) -> None:
    assert isinstance(operator, Cluster), "failing a node needs a cluster of `python -m testcluster`"
    job = Job(operator, team)
    pod = {"terminationGracePeriodSeconds": 1, "affinity": away_from_the_operator(operator)}
    create(job, epochs=10, nodes=1, podTemplate={"spec": pod})

    (lost,) = wait_until_it_trains(job, 1, pods=1)
    node = Node(int(lost["spec"]["nodeName"].removeprefix("node")))
    with cut_off(operator, node) as run_on:
        (successor,) = wait_until_it_trains(job, 2, pods=1)
        assert successor["spec"]["nodeName"] != node.name
        assert launchers(node), "it was frozen in the middle of its work"
        run_on()
        eventually("the stage has ended", lambda: job.stage("adapt")["state"] != "Running", LONG)
        eventually("the lost attempt has come to its end: nobody could stop it", lambda: not launchers(node), LONG)

    attempts = wait_for_the_end(job)
    assert [(a["outcome"], a["spentRestart"]) for a in attempts] == [("NodeLost", False), ("Succeeded", False)]
    assert (attempts[0]["node"], job.status["restarts"]) == (node.name, 0)
    assert_one_whole_artifact(job)
