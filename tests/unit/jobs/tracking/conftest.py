"""A real MLflow: sqlite for most tests, and a server where the wire matters."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kompress_api.contract import JobIdentity
from kompress_api.places import Tracking
from kompress_jobs.tracking.mlflow import Mlflow


@pytest.fixture
def job(request) -> JobIdentity:
    return JobIdentity(name="flowers", namespace="ml", uid=f"{request.node.name[:60]}-{time.time_ns()}")


@pytest.fixture
def server(database, job) -> Mlflow:
    return Mlflow(Tracking(uri=database, experiment="flowers"), job, patience=5)


class Server:
    """An `mlflow server` that can be stopped and started again over the same database."""

    def __init__(self, folder: Path, database: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._database = database
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self._database, "--serve-artifacts", "--artifacts-destination", str(self._folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        log = (self._folder / "server.log").open("a")
        self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        eventually(self._answers, seconds=400)

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=1).status == 200
        except OSError:
            return False


@pytest.fixture
def restartable(tmp_path, server) -> Iterator[Server]:
    """Started; its database is there already."""
    found = Server(tmp_path, server.uri)
    found.start()
    yield found
    found.stop()


def eventually(condition: Callable[[], object], *, seconds: float = 400) -> None:
    """Returns when the condition holds, fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.1)
