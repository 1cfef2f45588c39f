"""The test cluster with real nodes: what e2e tests and the demo build on. That it leaves nothing, `down` checks itself each time."""

import json
from pathlib import Path

import pytest

from testcluster import images, nodes
from testcluster.archives import HOST
from testcluster.cluster import Cluster, Connection
from testcluster.processes import ClusterError
from testcluster.settings import Node, Settings

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
    "readOnlyRootFilesystem": True,
}


def run_python(cluster: Connection, namespace: str, name: str, program: str, **pod: object) -> None:
    """A pod, locked down as kompress's own, that runs a program with this environment's Python."""
    container = {"name": "c", "image": HOST, "command": ["python", "-c", program], "securityContext": RESTRICTED}
    container["env"] = [{"name": key, "value": value} for key, value in cluster.s3.environment.items()]
    container["env"] += [{"name": "MLFLOW_TRACKING_URI", "value": cluster.mlflow.uri}]
    spec = {"runtimeClassName": "host", "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container], **pod}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}
    cluster.kubectl("apply", f"--namespace={namespace}", "--filename=-", stdin=json.dumps(manifest))


def logs_of_success(cluster: Connection, namespace: str, name: str) -> str:
    until = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("wait", f"pod/{name}", until, "--timeout=120s", f"--namespace={namespace}")
    return cluster.kubectl("logs", name, f"--namespace={namespace}")


def test_pod_reaches_s3_and_mlflow_by_address(cluster: Connection, namespace: str) -> None:
    bucket = cluster.s3.new_bucket()
    program = (
        "import boto3, os, urllib.request\n"
        f"boto3.client('s3').put_object(Bucket='{bucket}', Key='from/pod', Body=b'hello')\n"
        "print(urllib.request.urlopen(os.environ['MLFLOW_TRACKING_URI'] + '/version').status)"
    )
    run_python(cluster, namespace, "client", program)
    assert logs_of_success(cluster, namespace, "client").strip() == "200"
    assert cluster.s3.client().get_object(Bucket=bucket, Key="from/pod")["Body"].read() == b"hello"


def test_pod_finds_one_on_another_node_by_name_before_it_is_ready(cluster: Connection, namespace: str) -> None:
    """Ranks look for rank 0 by the headless Service's name, before anything is ready; an early "no such name" must not stick."""
    service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"app": "rank0"}, "ports": [{"port": 8080}]}
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "gang"}, "spec": service}
    cluster.kubectl("apply", f"--namespace={namespace}", "--filename=-", stdin=json.dumps(manifest))
    client = (
        "import socket, time\n"
        "while True:\n"
        "    try:\n"
        f"        print(socket.create_connection(('rank0.gang.{namespace}.svc.cluster.local', 8080), 5).recv(9).decode())\n"
        "        break\n"
        "    except OSError:\n"
        "        time.sleep(0.1)"
    )
    run_python(cluster, namespace, "rank1", client, nodeSelector={"kubernetes.io/hostname": "node2"})
    cluster.kubectl("wait", "pod/rank1", "--for=condition=Ready", "--timeout=60s", f"--namespace={namespace}")
    server = "import socket; socket.create_server(('', 8080)).accept()[0].send(b'rank 0')"
    place = {"nodeSelector": {"kubernetes.io/hostname": "node1"}, "hostname": "rank0", "subdomain": "gang"}
    run_python(cluster, namespace, "rank0", server, **place)
    assert logs_of_success(cluster, namespace, "rank1").strip() == "rank 0"


def test_stopped_node_frees_everything_and_comes_back(cluster: Connection, namespace: str) -> None:
    assert isinstance(cluster, Cluster), "failing a node needs a cluster of `python -m testcluster`"
    node = Node(2)
    run_python(cluster, namespace, "victim", "input()", nodeSelector={"kubernetes.io/hostname": node.name})
    cluster.kubectl("wait", "pod/victim", "--for=condition=Initialized", "--timeout=60s", f"--namespace={namespace}")
    cluster.stop_node(node.index)
    try:
        assert list(nodes.members(node)) == []
        assert not Path("/sys/class/net", node.link).exists()
        cluster.kubectl("wait", f"node/{node.name}", "--for=condition=Ready=Unknown", "--timeout=60s")
    finally:
        cluster.start_node(node.index)
    capacity = cluster.kubectl("get", "node", node.name, r"--output=jsonpath={.status.allocatable.nvidia\.com/gpu}")
    assert capacity == str(cluster.settings.gpus)


def test_second_cluster_with_nodes_is_refused_at_once_naming_the_first(cluster: Connection) -> None:
    assert isinstance(cluster, Cluster)
    with pytest.raises(ClusterError, match=f"already up on this machine: `{cluster.settings.name}`") as refusal:
        Cluster.up(Settings(name="second", nodes=1))
    assert f"--name {cluster.settings.name} down" in str(refusal.value)


def test_image_of_a_dockerfile_runs_and_is_built_again_only_when_what_it_copies_changed(
    cluster: Connection, namespace: str, tmp_path: Path
) -> None:
    assert isinstance(cluster, Cluster)
    dockerfile, greeting, unused = tmp_path / "Dockerfile", tmp_path / "greeting.txt", tmp_path / "unused.txt"
    dockerfile.write_text('ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY greeting.txt /\nRUN python3 -V\nCMD ["cat", "/greeting.txt"]\n')
    greeting.write_text("old")
    first = images.build(dockerfile, "kompress.test/greeting:1", context=tmp_path)
    unused.write_text("not copied")
    assert images.build(dockerfile, "kompress.test/greeting:1", context=tmp_path) == first
    greeting.write_text("new")
    second = images.build(dockerfile, "kompress.test/greeting:1", context=tmp_path)
    assert second != first
    assert not first.exists()
    cluster.load_image(second)
    run = ("run", "greeting", "--image=kompress.test/greeting:1", "--restart=Never", f"--namespace={namespace}")
    cluster.kubectl(*run)
    assert logs_of_success(cluster, namespace, "greeting") == "new"
