"""Suite `path`: what the whole way costs beside doing the same by hand, and what the example's model gains."""

import json
import math
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

from kompress_api.goals import BASELINE_PREFIX, figure_name
from kompress_jobs.measure.classification import wilson
from perf import handoff
from perf.recorder import Goal, Result, Row, Told, pairs

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
EXAMPLE = ROOT / "examples" / "digits.yaml"
BIN = Path(sys.executable).parent
STAGES = ("adapt", "student", "slim", "ship")
LOOP_EPOCHS = 5
LONG_PAIRS = 4
"""Of the scenario that takes eight minutes a pair."""


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

    yield Result("`kompress run` of the example", "s", "four bare torchrun scripts", Goal(1.15, "at_most"), pairs(ours, bare, LONG_PAIRS))
    yield from gains(shipped)


def manifest_of_export(home: Path) -> dict[str, Any]:
    """What the example's last stage committed."""
    found = [json.loads(path.read_text()) for path in home.rglob("artifacts/*/manifest.json")]
    return next(manifest for manifest in found if "speedups" in manifest["details"])


def gains(shipped: dict[str, Any]) -> Iterator[Told]:
    """The final ONNX model beside the fine-tuned one, as the export stage measured both: interleaved, one thread."""
    metrics, details = shipped["metrics"], shipped["details"]
    for found in details["speedups"]:
        first = found is details["speedups"][0]
        figure = "latencyP50Ms" if first else figure_name("latencyP50Ms", found["format"], found["target"], found["batchSize"])
        interval, goal = (found["low"], found["high"]), Goal(5.0, "at_least")
        yield Told(
            what=f"latency of the example's final ONNX model, batch {found['batchSize']}",
            unit="ms",
            value=metrics[figure],
            peer="the fine-tuned one (higher is faster)",
            peer_value=metrics[BASELINE_PREFIX + figure],
            compared=found["value"],
            interval=interval,
            goal=goal,
            met=goal.reached(*interval),
        )
    accuracy, before, samples = metrics["accuracy"], metrics[BASELINE_PREFIX + "accuracy"], details["samples"]
    lost, goal = 100 * (before - accuracy), Goal(1.0, "at_most", "points lost")
    low, high = difference(before, accuracy, samples)
    yield Told(
        what=f"accuracy of the example's final ONNX model, {samples} test images",
        unit="right",
        value=accuracy,
        peer="the fine-tuned one; by point estimate, as goals are",
        peer_value=before,
        compared=lost,
        interval=(100 * low, 100 * high),
        goal=goal,
        met=goal.reached(lost, lost),
    )


def difference(first: float, second: float, samples: int) -> tuple[float, float]:
    """95 % interval of the difference of two shares (R. G. Newcombe, 1998, method 10). Both models saw the same samples, so it is
    wider than it need be."""
    (low1, high1), (low2, high2) = (wilson(round(share * samples), samples) for share in (first, second))
    middle = first - second
    return middle - math.hypot(first - low1, high2 - second), middle + math.hypot(high1 - first, second - low2)


def torchrun(script: str, *arguments: str) -> str:
    """Two processes of a script, one thread each, as kompress starts its own; what rank 0 printed."""
    processes = YAML(typ="safe", pure=True).load(EXAMPLE)["spec"]["runtime"]["processesPerNode"]
    command = [BIN / "torchrun", f"--nproc-per-node={processes}", SCRIPTS / script, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} ended with {done.returncode}: {done.stderr}")
    return done.stdout
