"""Suite `path`: what the whole way costs beside doing the same by hand, and what the example's model gains."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from perf import handoff
from perf.recorder import Goal, Result, Row, pairs
from perf.shipped import gains

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
EXAMPLE = ROOT / "examples" / "digits.yaml"
BIN = Path(sys.executable).parent
STAGES = ("adapt", "student", "slim", "ship")
LOOP_EPOCHS = 5
LONG_PAIRS = 4
"""Of the scenario that takes five minutes a pair."""


def results() -> Iterator[Row]:
    """Each scenario in turn; the slow one last."""
    yield loop()
    yield from handoff.results()
    yield from whole()


def loop() -> Result:
    """Samples a second of the training loop."""

    def rate(script: str, *arguments: str) -> float:
        said = torchrun(script, *arguments, str(LOOP_EPOCHS))
        return float(next(line.split()[1] for line in said.splitlines() if line.startswith("samples/s")))

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return rate("loop_kompress.py", folder)

    samples = pairs(ours, lambda: rate("loop_bare.py"))
    return Result("training loop, 2 processes, ResNet-18 at 32x32", "samples/s", "hand-written DDP", Goal(1.0, "at_least"), samples)


def whole() -> Iterator[Row]:
    """Wall time of `kompress run` of the example, everything done anew; and what the last run says of its model."""
    shipped: dict[str, Any] = {}

    def ours() -> float:
        with tempfile.TemporaryDirectory() as home:
            start = time.perf_counter()
            environment = os.environ | {"KOMPRESS_HOME": home}
            done = subprocess.run([BIN / "kompress", "run", EXAMPLE], env=environment, capture_output=True, text=True, check=False)
            if done.returncode not in (0, 3):  # a missed goal is no failed run
                raise RuntimeError(done.stderr)
            seconds = time.perf_counter() - start
            shipped.update(manifest_of_export(Path(home)))
            return seconds

    def bare() -> float:
        folder = tempfile.mkdtemp()
        try:
            start = time.perf_counter()
            for stage in STAGES:
                torchrun("path_bare.py", str(EXAMPLE), folder, stage)
            return time.perf_counter() - start
        finally:
            shutil.rmtree(folder)

    yield Result("the whole run of the example", "s", "four bare torchrun scripts", Goal(1.15, "at_most"), pairs(ours, bare, LONG_PAIRS))
    yield from gains("the example's final ONNX model", shipped["metrics"], shipped["details"], faster=5.0)


def manifest_of_export(home: Path) -> dict[str, Any]:
    """What the example's last stage committed."""
    found = [json.loads(path.read_text()) for path in home.rglob("artifacts/*/manifest.json")]
    return next(manifest for manifest in found if "speedups" in manifest["details"])


def torchrun(script: str, *arguments: str) -> str:
    """Two processes of a script, one thread each, as kompress starts its own; what rank 0 printed."""
    processes = YAML(typ="safe", pure=True).load(EXAMPLE)["spec"]["runtime"]["processesPerNode"]
    command = [BIN / "torchrun", f"--nproc-per-node={processes}", SCRIPTS / script, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} ended with {done.returncode}: {done.stderr}")
    return done.stdout
