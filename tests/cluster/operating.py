"""The operator process, a CompressionJob, and a test that plays the kubelet: there are no nodes, so it says what pods did."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from testcluster.cluster import Connection
from testcluster.processes import ClusterError

T = TypeVar("T")
REPOSITORY = Path(__file__).parents[2]
KINDS = ("compressionjobs.kompress.io", "clustercompressionruntimes.kompress.io")
PATIENCE = 60.0
"""Seconds that a condition may take on a busy machine; no test measures them."""


def eventually(what: str, probe: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """The first answer of `probe` that holds."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if answer := probe():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not within {patience:.0f} s: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def install_crds(connection: Connection) -> None:
    """Our two kinds, as soon as the API server serves them."""
    connection.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"))
    wait_until_served(connection, *KINDS)


def wait_until_served(connection: Connection, *kinds: str) -> None:
    """Objects of these kinds can be created, and their CRDs deleted.

    `kubectl wait --for=condition=Established` fails on a CRD so new that it has no conditions yet. And before the API server lets a
    CRD go it lists the objects to delete along: if nobody has asked for the kind yet, its storage is only being opened, the server
    writes this failure into the CRD's status, tries again at once, and gives up when its own copy of the CRD is older than what it has
    just written. Its next try is a resync, up to 5 minutes later.
    """

    def listed() -> bool:
        try:
            connection.kubectl("get", ",".join(kinds), "--all-namespaces")
        except ClusterError:
            return False
        return True

    eventually(f"{' and '.join(kinds)} are served", listed)


class Operator:
    """`python -m kompress_operator` for one namespace."""

    def __init__(self, connection: Connection, namespace: str, folder: Path, **settings: object) -> None:
        self.health_port, self.metrics_port = free_port(), free_port()
        self.log = folder / "operator.log"
        given = {"health_port": self.health_port, "metrics_port": self.metrics_port, "namespace": namespace, "watch_namespaces": namespace}
        given |= {"lease_seconds": 4, "renew_seconds": 3, "retry_seconds": 1, "pod_name": "operator-0", "backoff_seconds": 0.2} | settings
        variables = {f"KOMPRESS_{name.upper()}": str(value) for name, value in given.items()}
        self.environment = {**os.environ, **connection.environment, **variables}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "kompress_operator"], env=self.environment, stdout=log, stderr=log)

    def wait_until_ready(self) -> None:
        eventually("the operator is ready", lambda: self.answer("readyz") == 200)

    def answer(self, path: str) -> int:
        """HTTP status of a probe, 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}/{path}", timeout=5) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def metrics(self) -> dict[str, float]:
        """What /metrics says, by name and labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line and line[0] != "#")}

    def kill(self) -> None:
        """As the kernel does it: no time for anything."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """As the kubelet does it."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def operating(connection: Connection, namespace: str, folder: Path, **settings: object) -> Iterator[Operator]:
    """A ready operator; the end of its log is shown when a test fails."""
    operator = Operator(connection, namespace, folder, **settings)
    operator.start()
    try:
        operator.wait_until_ready()
        yield operator
    finally:
        operator.stop()
        print(operator.log.read_text()[-20_000:])


class Job:
    """One CompressionJob, and the kubelet of its pods."""

    def __init__(self, connection: Connection, namespace: str, name: str = "flowers") -> None:
        self.connection = connection
        self.namespace = namespace
        self.name = name

    def create(self, **spec: Any) -> None:
        whole = {
            "task": "image-classification",
            "model": {"source": "torchvision://resnet18"},
            "dataset": {"source": "builtin://digits"},
            "output": {"uri": "s3://models/flowers"},
            "tracking": {"uri": "http://mlflow:5000"},
            "runtime": {"image": "registry.example/kompress-jobs:1"},
            "restartPolicy": {"maxRestarts": 2, "backoffSeconds": 0},
            "stages": [
                {"name": "adapt", "fineTune": {"strategy": "Full", "epochs": 1}},
                {"name": "slim", "prune": {"pruningRatio": 0.5}},
            ],
        } | spec
        manifest = {"apiVersion": "kompress.io/v1alpha1", "kind": "CompressionJob", "metadata": {"name": self.name}, "spec": whole}
        self.kubectl("create", "-f", "-", stdin=json.dumps({**manifest, "spec": {k: v for k, v in whole.items() if v is not None}}))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.connection.kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    def get(self, *what: str) -> dict[str, Any]:
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def patch(self, spec: dict[str, Any]) -> None:
        self.kubectl("patch", "compressionjob", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    @property
    def manifest(self) -> dict[str, Any]:
        return self.get("compressionjob", self.name)

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.manifest.get("status") or {})

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", ""))

    def stage(self, name: str) -> dict[str, Any]:
        return next((entry for entry in self.status.get("stages", ()) if entry["name"] == name), {})

    def condition(self, kind: str) -> dict[str, Any]:
        return next((entry for entry in self.status.get("conditions", ()) if entry["type"] == kind), {})

    def attempts(self) -> set[str]:
        """`stage-attempt` of every Job that there is."""
        items = self.get("jobs", "-l", f"kompress.io/job={self.name}")["items"]
        return {item["metadata"]["name"].removeprefix(f"{self.name}-") for item in items}

    def pods(self, stage: str, attempt: int) -> list[dict[str, Any]]:
        items = self.get("pods", "-l", f"job-name={self.name}-{stage}-{attempt}")["items"]
        return sorted(items, key=lambda pod: pod["metadata"]["name"])

    def wait_for_phase(self, phase: str) -> dict[str, Any]:
        eventually(f"phase {phase}", lambda: self.phase == phase)
        return self.status

    def wait_for_attempt(self, stage: str, attempt: int, pods: int = 1) -> list[dict[str, Any]]:
        def there() -> list[dict[str, Any]]:
            found = self.pods(stage, attempt)
            return found if len(found) == pods else []

        return eventually(f"{pods} pods of {stage} {attempt}", there)

    def wait_for_end(self, stage: str, attempt: int) -> dict[str, Any]:
        """What the status says of an attempt that ended; its successor may be there before that is written."""

        def ended() -> dict[str, Any]:
            attempts = self.stage(stage).get("attempts", ())
            return next((found for found in attempts if found["attempt"] == attempt and found["outcome"]), {})

        return eventually(f"the end of {stage} {attempt} is in the status", ended)

    def end_pod(self, pod: dict[str, Any], code: int, message: dict[str, Any] | None, phase: str = "", **terminated: Any) -> None:
        """What a kubelet reports of a container that ended; in its first word of it the pod is still `Running`."""
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "finishedAt": _now(), "startedAt": _now()} | terminated
        if message is not None:
            ended["message"] = json.dumps(message)
        worker = {"name": "worker", "state": {"terminated": ended}, "ready": False, "restartCount": 0, "image": "x", "imageID": "x"}
        status = {"phase": phase or ("Failed" if code else "Succeeded"), "containerStatuses": [worker]}
        self._patch_pod(pod, {"status": status})

    def run_pod(self, pod: dict[str, Any]) -> None:
        """What a kubelet reports of a container that runs."""
        worker = {
            "name": "worker",
            "state": {"running": {"startedAt": _now()}},
            "ready": True,
            "restartCount": 0,
            "image": "x",
            "imageID": "x",
        }
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [worker]}
        self._patch_pod(pod, {"status": status})

    def succeed(self, stage: str, attempt: int = 1, phase: str = "", **said: Any) -> None:
        """All pods of an attempt end well, and rank 0's says what it made; `phase` as in `end_pod`."""
        usual: dict[str, Any] = {"artifact": f"s3://models/flowers/artifacts/{stage}", "digest": f"sha256:{stage}", "key": stage}
        if stage == "preflight":
            usual = {"plan": "s3://models/flowers/jobs/plan.json", "parentRunId": "run", "keys": {}, "hits": {}}
        if stage == "report":
            usual = {"report": "s3://models/flowers/report.html"}
        for index, pod in enumerate(self.wait_for_attempt(stage, attempt)):
            self.end_pod(pod, 0, {"outcome": "Succeeded", **usual, **said} if index == 0 else None, phase)

    def fail(self, stage: str, attempt: int = 1, code: int = 1, **said: Any) -> None:
        """Rank 0's pod ends with an error and says why."""
        failure = {
            "outcome": "Failed",
            "reason": "ValueError",
            "message": "boom",
            "exitCode": code,
            "rank": 0,
            "timeUs": time.time_ns() // 1000,
        }
        self.end_pod(self.wait_for_attempt(stage, attempt)[0], code, failure | said)

    def _patch_pod(self, pod: dict[str, Any], body: dict[str, Any]) -> None:
        self.kubectl("patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", "-p", json.dumps(body))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
