"""The two servers that a compression job talks to: S3 (versitygw on a folder) and MLflow. In a cluster, or alone.

Their keys are no secret: they are reachable from this machine and its pods only.
"""

import dataclasses
import signal
import socket
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from testcluster.places import BIN, HOST_IP
from testcluster.processes import ClusterError, Processes

ALLOWED_HOSTS = ("localhost", "127.0.0.1", HOST_IP, "mlflow", "mlflow.*")
"""Host headers that MLflow answers to, with any port: its addresses, and a Service named `mlflow` in any namespace."""


@dataclasses.dataclass(frozen=True)
class S3:
    """An S3 server and how to reach it."""

    endpoint: str
    access_key: str = "kompress"
    secret_key: str = "kompress-test"
    region: str = "us-east-1"

    @property
    def environment(self) -> dict[str, str]:
        """The standard AWS variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def client(self) -> Any:
        """A boto3 client of its own session, blind to the user's AWS profile."""
        import boto3  # type: ignore[import-untyped]

        session = boto3.session.Session(self.access_key, self.secret_key, region_name=self.region)
        return session.client("s3", endpoint_url=self.endpoint)

    def new_bucket(self, prefix: str = "test") -> str:
        """Makes a bucket that nobody else uses and returns its name."""
        name = f"{prefix}-{uuid.uuid4().hex[:10]}"
        self.client().create_bucket(Bucket=name)
        return name


@dataclasses.dataclass(frozen=True)
class Mlflow:
    """An MLflow server and how to reach it."""

    uri: str

    @property
    def environment(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.uri}


def start_s3(folder: Path, processes: Processes, ip: str, port: int) -> S3:
    """Starts the S3 server unless it runs. Its objects lie below `folder`/s3: keys are paths there.

    So `a/b` can't be written beside `a`, which S3 itself would allow.
    """
    server = S3(f"http://{ip}:{port}")
    (folder / "s3").mkdir(parents=True, exist_ok=True)
    processes.start(
        *("s3", BIN / "versitygw", "--quiet", "--keep-alive", "--port", f"{ip}:{port}", "posix", folder / "s3"),
        environment={"ROOT_ACCESS_KEY_ID": server.access_key, "ROOT_SECRET_ACCESS_KEY": server.secret_key},
    )
    processes.wait(lambda: _listens(ip, port), "the S3 server", 30, alive="s3")
    return server


def start_mlflow(folder: Path, processes: Processes, ip: str, port: int) -> Mlflow:
    """Starts the MLflow server of this Python's environment unless it runs, and does not wait: importing it takes seconds."""
    home = folder / "mlflow"
    (home / "artifacts").mkdir(parents=True, exist_ok=True)
    hosts = [f"{host}{suffix}" for host in ALLOWED_HOSTS for suffix in ("", ":*")]
    processes.start(
        *("mlflow", sys.executable, "-m", "mlflow", "server", "--host", ip, "--port", port, "--workers", 1),
        *("--backend-store-uri", f"sqlite:///{home}/mlflow.db"),
        *("--serve-artifacts", "--artifacts-destination", home / "artifacts"),  # so its clients need no S3 keys
        *("--allowed-hosts", ",".join(hosts)),
        # Its job runner is for GenAI evaluations, and costs 0.8 GiB.
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        death_signal=signal.SIGTERM,  # which its command line passes on to the server, its child
    )
    return Mlflow(f"http://{ip}:{port}")


def wait_for_mlflow(processes: Processes, ip: str, port: int) -> None:
    """Returns when the server answers."""
    processes.wait(lambda: _listens(ip, port), "the MLflow server", 180, alive="mlflow")


def check_free(ip: str, ports: Iterable[int]) -> None:
    """Manifests name these ports, so that no other will do.

    Raises:
        ClusterError: somebody listens on one of them.
    """
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ip, port))
            except OSError as error:
                raise ClusterError(
                    f"the cluster needs port {port} of {ip}: {error.strerror}; `ss -ltnp sport = :{port}` shows who has it"
                ) from None


def _listens(ip: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((ip, port)) == 0
