"""Just enough of a Kubernetes client for what the test cluster itself asks; tests use kubectl or the kubernetes package."""

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class Api:
    """The API server that a kubeconfig written by `pki.py` names."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> dict[str, Any]:
        """One request; raises `urllib.error.HTTPError` when it is refused."""
        config = json.loads(self.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        request = urllib.request.Request(
            cluster["server"] + path,
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"Bearer {user['token']}", "Content-Type": kind},
        )
        trust = ssl.create_default_context(cafile=cluster["certificate-authority"])
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
        with opener.open(request, timeout=60) as reply:
            text = reply.read()
        return json.loads(text) if text.startswith(b"{") else {}

    def exists(self, path: str) -> bool:
        try:
            self.call("GET", path)
        except OSError:
            return False
        return True

    def node_ready(self, name: str) -> bool:
        try:
            conditions = self.call("GET", f"/api/v1/nodes/{name}")["status"].get("conditions", ())
        except OSError:
            return False
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def set_gpus(self, node: str, count: int) -> None:
        """What a device plugin would report. The kubelet keeps a resource that it does not know, until it restarts."""
        amount = {"nvidia.com/gpu": str(count)}
        self.call(
            "PATCH",
            f"/api/v1/nodes/{node}/status",
            {"status": {"capacity": amount, "allocatable": amount}},
            "application/strategic-merge-patch+json",
        )
