"""`kompress run` on this machine, whole: real torchrun, real training, interrupted in every way that a laptop knows."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KOMPRESS = str(Path(sys.executable).with_name("kompress"))
NETWORK = """
from torch import nn

def network(num_classes: int, width: int = 16) -> nn.Module:
    def block(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
    layers = [block(1, width), block(width, 2 * width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, num_classes)]
    return nn.Sequential(*layers)
"""


class Laptop:
    """A folder to work in, with the user's own model in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tiny_digits.py").write_text(NETWORK)
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        self.environment = {**os.environ, "KOMPRESS_FACTORIES": "tiny_digits", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.environment.pop("KOMPRESS_HOME", None)
        self.processes: list[subprocess.Popen[str]] = []

    def manifest(self, name: str, **spec: object) -> str:
        """Writes a small job; returns its file."""
        training = {"batchSize": 64, "learningRate": 0.003}
        content = {
            "apiVersion": "kompress.io/v1alpha1",
            "kind": "CompressionJob",
            "metadata": {"name": name},
            "spec": {
                "task": "image-classification",
                "model": {"source": "python://tiny_digits:network"},
                "dataset": {"source": "builtin://digits"},
                "output": {"uri": f"file://{self.folder}/shared"},
                "runtime": {"processesPerNode": 2},
                "restartPolicy": {"backoffSeconds": 0},
                "stages": [
                    {"name": "adapt", "fineTune": {"epochs": 1, **training}},
                    {"name": "slim", "prune": {"pruningRatio": 0.5, "iterativeSteps": 1, "recovery": {"epochs": 1, **training}}},
                ],
                "goals": [{"metric": "parameters", "minImprovement": 1.5}],
                **spec,
            },
        }
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(content))
        return path.name

    def long_manifest(self, name: str, seed: int) -> str:
        """One stage that trains for long enough to be interrupted."""
        training = {"epochs": 30, "batchSize": 64, "learningRate": 0.003, "checkpoint": {"everySteps": 10}}
        return self.manifest(name, seed=seed, goals=[], stages=[{"name": "adapt", "fineTune": training}])

    def kompress(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([KOMPRESS, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)

    def started(self, *arguments: str) -> subprocess.Popen[str]:
        """In the background, in a process group of its own."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([KOMPRESS, *arguments], cwd=self.folder, env=self.environment, start_new_session=True, **pipes)
        self.processes.append(process)
        return process

    def job(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / "kompress-runs" / name / "job.json").read_text())  # type: ignore[no-any-return]

    def stages(self, name: str) -> dict[str, dict[str, Any]]:
        return {entry["name"]: entry for entry in self.job(name)["status"]["stages"]}

    def events(self, attempt: str) -> str:
        """What rank 0 of a running attempt has told."""
        return "".join(path.read_text() for path in self.folder.glob(f"kompress-runs/*/*/scratch/{attempt}-0/events.jsonl"))

    def checkpoints(self) -> list[Path]:
        return list((self.folder / "shared" / "checkpoints").glob("*/*/step-*/*.json"))

    def launchers(self) -> list[str]:
        """Process ids of launchers and workers that still run here."""
        found = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
        return [line for line in found if "kompress_jobs" in line and self._is_mine(line.split()[0])]

    def _is_mine(self, pid: str) -> bool:
        try:
            return f"PYTHONPATH={self.folder}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    made = Laptop(tmp_path_factory.mktemp("laptop"))
    yield made
    for process in [entry for entry in made.processes if entry.poll() is None]:  # of a test that failed
        process.terminate()
        process.communicate()
    assert made.launchers() == [], "nothing is left running"


@pytest.fixture(scope="module")
def finished(laptop: Laptop) -> subprocess.CompletedProcess[str]:
    """The first run, to its end."""
    return laptop.kompress("run", laptop.manifest("first"))


def until(holds: Callable[[], object], process: subprocess.Popen[str], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, "it ended before: " + "".join(process.communicate())
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_it_ends_with_a_table_of_stages_goals_and_places(laptop: Laptop, finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stderr
    rows = [line.split() for line in finished.stdout.splitlines()]
    assert ["adapt", "Succeeded"] in [row[:2] for row in rows]
    assert ["slim", "Succeeded"] in [row[:2] for row in rows]
    assert any(row[:2] == ["parameters", "slim"] and row[-1] == "met" for row in rows)
    places = dict(line.split(": ", 1) for line in finished.stdout.splitlines() if ": " in line)
    for name in ("model", "report"):
        assert Path(places[name].removeprefix("file://")).exists()
    assert places["metrics"] == f"mlflow ui --backend-store-uri sqlite:///{laptop.folder}/kompress-runs/first/mlflow.db"
    assert finished.stderr.splitlines()[0] == "preflight: running (attempt 1)"


def test_the_same_manifest_again_only_shows_its_status(laptop: Laptop, finished: subprocess.CompletedProcess[str]) -> None:
    before = laptop.job("first")
    again = laptop.kompress("run", "first.json")
    assert (again.returncode, again.stdout) == (0, finished.stdout)
    assert again.stderr.startswith("first has finished; this is its status")
    assert laptop.job("first") == before


def test_another_name_reuses_every_stage_without_training(laptop: Laptop, finished: subprocess.CompletedProcess[str]) -> None:
    done = laptop.kompress("run", laptop.manifest("second"), "--json")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    stages = {entry["name"]: entry for entry in job["status"]["stages"]}
    assert job["status"]["phase"] == "Complete"
    assert [stages[name]["result"]["reused"] for name in ("adapt", "slim")] == [True, True]
    assert [attempt["reuse"] for name in ("adapt", "slim") for attempt in stages[name]["attempts"]] == [True, True]
    assert stages["slim"]["result"]["digest"] == laptop.stages("first")["slim"]["result"]["digest"]


def test_a_plan_says_what_would_run_and_what_is_there(laptop: Laptop, finished: subprocess.CompletedProcess[str]) -> None:
    changed = json.loads((laptop.folder / laptop.manifest("planned")).read_text())
    changed["spec"]["stages"][1]["prune"]["pruningRatio"] = 0.25
    (laptop.folder / "planned.json").write_text(json.dumps(changed))
    done = laptop.kompress("plan", "planned.json")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[:3] for row in rows if row[:1] in (["adapt"], ["slim"])] == [["adapt", "fineTune", "reuse"], ["slim", "prune", "run"]]
    assert laptop.stages("planned")["adapt"]["attempts"] == [], "nothing was started"


def test_a_missed_goal_is_told_and_the_model_kept(laptop: Laptop, finished: subprocess.CompletedProcess[str]) -> None:
    done = laptop.kompress("run", laptop.manifest("greedy", goals=[{"metric": "parameters", "atMost": 1}]))
    assert done.returncode == 3
    assert "error: GoalMissed: parameters of slim is " in done.stderr
    assert any(line.split()[-1:] == ["missed"] for line in done.stdout.splitlines())
    assert "model: file://" in done.stdout


def test_kill_9_loses_nothing(laptop: Laptop) -> None:
    """The launchers hear of it, save a checkpoint and end; the next run goes on from there."""
    path = laptop.long_manifest("killed", seed=1)
    running = laptop.started("run", path)
    before = set(laptop.checkpoints())
    until(lambda: set(laptop.checkpoints()) - before, running)
    running.kill()
    running.communicate()

    resumed = laptop.started("run", path)
    until(lambda: "resumed from the checkpoint" in laptop.events("killed-adapt-2"), resumed)
    _, err = resumed.communicate()
    assert resumed.returncode == 0, err
    assert "going on with killed" in err
    assert [attempt["outcome"] for attempt in laptop.stages("killed")["adapt"]["attempts"]] == ["Interrupted", "Succeeded"]
    assert [attempt["outcome"] for attempt in laptop.stages("killed")["preflight"]["attempts"]] == ["Succeeded"], "it is not done again"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_a_checkpoint_and_says_how_to_go_on(laptop: Laptop, number: signal.Signals) -> None:
    name = f"stopped{int(number)}"
    path = laptop.long_manifest(name, seed=2 + int(number))
    running = laptop.started("run", path)
    before = set(laptop.checkpoints())
    until(lambda: set(laptop.checkpoints()) - before, running)
    running.send_signal(number)
    _, err = running.communicate()
    assert running.returncode == 130, err
    assert "stopping: running stages save a checkpoint; once more stops at once" in err
    assert err.endswith(f"stopped; `kompress run {path}` goes on from here\n")
    assert laptop.launchers() == []
    assert laptop.job(name)["status"]["phase"] == "Suspended"

    resumed = laptop.started("run", path)
    until(lambda: "resumed from the checkpoint" in laptop.events(f"{name}-adapt-2"), resumed)
    _, err = resumed.communicate()
    assert resumed.returncode == 0, err


def test_two_at_once_are_refused(laptop: Laptop) -> None:
    path = laptop.long_manifest("twice", seed=9)
    running = laptop.started("run", path)
    until((laptop.folder / "kompress-runs/twice/job.json").exists, running)
    other = laptop.kompress("run", path)
    assert (other.returncode, other.stdout) == (1, "")
    assert other.stderr.startswith(f"error: twice is being run by process {running.pid}\n")
    running.send_signal(signal.SIGINT)
    running.communicate()
    assert running.returncode == 130


def test_a_verified_artifact_and_a_damaged_one(laptop: Laptop, finished: subprocess.CompletedProcess[str]) -> None:
    uri = laptop.stages("first")["slim"]["result"]["artifact"]
    done = laptop.kompress("verify", uri, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reloaded"]["task"] == "image-classification"

    weights = Path(uri.removeprefix("file://")) / "model.safetensors"
    intact = weights.read_bytes()
    try:
        weights.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
        done = laptop.kompress("verify", uri)
        assert (done.returncode, done.stdout) == (1, "")
        assert "model.safetensors" in done.stderr
    finally:
        weights.write_bytes(intact)
