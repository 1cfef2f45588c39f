"""Jobs of kompress that peers are compared with, run as a user runs them: `kompress run FILE`. All share one output, so that a stage which
another job has made already is reused."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kompress_api.names import RESERVED_STAGES
from perf.engine.peers import BUILD, hub

GOAL_MISSED = 3


@dataclass(frozen=True)
class Made:
    """What a stage has made."""

    folder: Path
    """Its bundle or exported files."""
    metrics: dict[str, float]
    details: dict[str, Any]


def run(name: str, spec: dict[str, Any]) -> dict[str, Made]:
    """The stages of a finished job by name. Raises RuntimeError with what the command said."""
    home = BUILD / "jobs"
    home.mkdir(parents=True, exist_ok=True)
    file = home / f"{name}.json"
    manifest = {
        "apiVersion": "kompress.io/v1alpha1",
        "kind": "CompressionJob",
        "metadata": {"name": name},
        "spec": {"output": {"uri": f"file://{home / 'output'}"}, **spec},
    }
    file.write_text(json.dumps(manifest, indent=1))
    command = [Path(sys.executable).with_name("kompress"), "run", file, "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # kompress shares the cores out
    environment |= hub() | {"KOMPRESS_HOME": str(home / name)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, GOAL_MISSED):
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-4000:]}")
    stages = json.loads(done.stdout)["status"]["stages"]
    return {stage["name"]: made(stage["result"]["artifact"]) for stage in stages if stage["name"] not in RESERVED_STAGES}


def made(artifact: str) -> Made:
    """Read a committed artifact."""
    folder = Path(urlsplit(artifact).path)
    manifest = json.loads((folder.parent / "manifest.json").read_text())
    return Made(folder, manifest["metrics"], manifest["details"])
