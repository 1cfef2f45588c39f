"""Real launchers with real torchrun processes on this machine: a stage of the API on a tiny model and real digits."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import TypeAdapter

from kompress_api.contract import StageFailure, StageSuccess, Termination

FACTORIES = Path(__file__).parent / "factories"
either: TypeAdapter[Any] = TypeAdapter(Termination)


class Launch:
    """One launcher process."""

    def __init__(self, folder: Path, stage: dict[str, Any], **variables: str) -> None:
        self.index = variables.get("KOMPRESS_POD_INDEX", "0")
        self.termination = folder / f"termination-{stage.get('name')}-{stage.get('attempt')}-{self.index}"
        self.scratch = folder / "scratch" / f"flowers-{stage.get('name')}-{stage.get('attempt')}-{self.index}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("KOMPRESS_", "AWS_", "MLFLOW_"))}
        environment |= {
            "KOMPRESS_STAGE": json.dumps(stage),
            "KOMPRESS_SCRATCH": str(folder / "scratch"),
            "KOMPRESS_TERMINATION_LOG": str(self.termination),
            "KOMPRESS_CREDENTIALS": "",
            "KOMPRESS_FACTORIES": "tiny_models",
            "PYTHONPATH": str(FACTORIES),
            "OMP_NUM_THREADS": "1",
            **variables,
        }
        self.log = (folder / f"log-{stage.get('name')}-{stage.get('attempt')}-{self.index}").open("w+")
        command = [sys.executable, "-m", "kompress_jobs"]
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log, start_new_session=True)

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(timeout=600)

    @property
    def told(self) -> StageSuccess | StageFailure:
        """The termination message."""
        found: StageSuccess | StageFailure = either.validate_json(self.termination.read_bytes())
        return found

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What rank 0 has told so far."""
        path = self.scratch / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["type"] == kind]

    def training(self) -> bool:
        """Whether rank 0 has told of a step."""
        assert self.process.poll() is None, f"ended early with {self.process.returncode}: {self.output()[-3000:]}"
        return any(event["done"] > 0 for event in self.events("progress"))

    def rank(self, rank: int) -> psutil.Process:
        """The worker process of a rank."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if "kompress_jobs.pod.worker" in child.cmdline() and child.environ().get("RANK") == str(rank):
                return child
        raise AssertionError(f"no process of rank {rank}")

    def output(self) -> str:
        """Everything that it wrote."""
        self.log.flush()
        return Path(self.log.name).read_text()

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # its workers end with it
            self.process.wait()
        self.log.close()


Launcher = Callable[..., Launch]


@pytest.fixture
def launch(tmp_path) -> Iterator[Launcher]:
    """Start a launcher; what is still running ends with the test."""
    started: list[Launch] = []

    def start(stage: dict[str, Any], **variables: str) -> Launch:
        started.append(Launch(tmp_path, stage, **variables))
        return started[-1]

    yield start
    for entry in started:
        entry.end()


@pytest.fixture
def stage(tmp_path, database) -> Callable[..., dict[str, Any]]:
    """A fineTune as the operator tells it."""

    def build(**fields: Any) -> dict[str, Any]:
        usual = {"batchSize": 64, "learningRate": 1e-2, "checkpoint": {"everySteps": 20}}
        spec = usual | {"epochs": fields.pop("epochs", 1)} | fields.pop("fine_tune", {})
        return {
            "job": {"name": "flowers", "uid": "u-1"},
            "kind": "fineTune",
            "name": "adapt",
            "attempt": 1,
            "task": "image-classification",
            "seed": 0,
            "evaluation": {},
            "model": {"source": "python://tiny_models:tiny"},
            "dataset": {"source": "builtin://digits"},
            "output": {"uri": f"file://{tmp_path}/output"},
            "tracking": {"uri": database, "experiment": tmp_path.name},
            "stage": {"name": "adapt", "fineTune": spec},
            "inputs": [{"role": "model", "stage": "source"}],
            **fields,
        }

    return build


def eventually(condition: Callable[[], object], *, seconds: float = 400) -> None:
    """Returns when the condition holds, fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
