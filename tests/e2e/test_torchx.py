"""`torchx run -s kubernetes_job dist.torchrun` on real nodes: ranks of two pods meet, and torchx follows their logs."""

import json
import os
import subprocess
import sys
from pathlib import Path

from testcluster.archives import HOST
from testcluster.cluster import Connection

SUM_OF_RANKS = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor(float(dist.get_rank() + 1))
dist.all_reduce(total)
print(f"node {os.environ['GROUP_RANK']}: the sum over {dist.get_world_size()} ranks is {total.item():.0f}", flush=True)
dist.destroy_process_group()
"""


def torchx(cluster: Connection, *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("torchx")), *arguments]
    done = subprocess.run(command, env={**os.environ, **cluster.environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ranks_on_two_nodes_meet_and_their_logs_are_followed(cluster: Connection, namespace: str, tmp_path: Path) -> None:
    """Each pod must run on a node of its own: it is given away as soon as both are told to be on one."""
    spread = {
        "labelSelector": {"matchLabels": {"torchx.pytorch.org/role-name": "sum"}},
        "topologyKey": "kubernetes.io/hostname",
    }
    template = {
        "spec": {
            "runtimeClassName": "host",
            "securityContext": {"runAsUser": 65532},
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [spread]}},
            "volumes": [{"name": "code", "configMap": {"name": "code"}}],
            "containers": [{"name": "worker", "workingDir": "/code", "volumeMounts": [{"name": "code", "mountPath": "/code"}]}],
        }
    }
    cluster.kubectl("create", "configmap", "code", f"--namespace={namespace}", f"--from-literal=sum.py={SUM_OF_RANKS}")
    (tmp_path / "template.yaml").write_text(json.dumps(template))
    options = f"namespace={namespace},pod_template={tmp_path / 'template.yaml'}"
    component = ("dist.torchrun", "-j", "2x2", "--script", "sum.py", "--image", HOST, "--cpu", "1", "--memMB", "4000")
    handle = torchx(cluster, "run", "-s", "kubernetes_job", "-cfg", options, *component).split()[-1]

    for replica in (0, 1):
        log = torchx(cluster, "log", "--tail", f"{handle}/sum/{replica}")
        assert log.count("the sum over 4 ranks is 10") == 2, log
    job = handle.rpartition(":")[2]
    cluster.kubectl("wait", f"job/{job}", f"--namespace={namespace}", "--for=condition=Complete", "--timeout=120s")
    status = torchx(cluster, "status", handle)
    assert "SUCCEEDED" in status and status.count(":SUCCEEDED") == 2
