"""What a plan says of memory holds: a pod whose limit lies above it is not killed, and a figure that says nothing would help nobody."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kompress_api.job import CompressionJobSpec
from kompress_jobs.rehearsal import memory

WIDE = {"source": "python://tiny_models:convolutional", "arguments": {"width": 128}}
TUNE = {"name": "tune", "fineTune": {"epochs": 6, "batchSize": 512, "learningRate": 1e-2, "augmentation": "None"}}
SLIM = {
    "name": "slim",
    "prune": {"pruningRatio": 0.5, "recovery": {"epochs": 6, "batchSize": 256, "learningRate": 1e-2, "augmentation": "None"}},
}
SHIP = {"name": "ship", "export": {"formats": [{"type": "ONNX"}], "benchmark": {"warmup": 0, "iterations": 10}}}
JOB: dict[str, Any] = {
    "task": "image-classification",
    "model": WIDE,
    "dataset": {"source": "builtin://digits"},
    "stages": [TUNE, SLIM, SHIP],
}
FIGURES = ("workerMemoryBytes", "artifactBytes")


def told(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "measured_memory", *arguments], stdout=subprocess.PIPE, check=True, text=True, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_every_stage_stays_within_what_the_plan_says(tmp_path: Path) -> None:
    planned = told("plan", str(tmp_path), json.dumps(JOB))
    made = ""
    for index, stage in enumerate(planned["stages"]):
        found = told("run", str(tmp_path), json.dumps(JOB), str(index), made)
        made = found["folder"]
        for name in FIGURES:
            low, likely, high = (stage[side][name] for side in ("low", "figures", "high"))
            assert low <= found[name] <= high, f"{stage['name']}: {name} is {found[name]:,}, planned {low:,} to {high:,}"
            assert low <= likely <= high
    tune = planned["stages"][0]
    assert tune["figures"]["workerMemoryBytes"] > tune["low"]["workerMemoryBytes"]


def spec(**fields: Any) -> CompressionJobSpec:
    return CompressionJobSpec.model_validate(JOB | fields)


def worker(*, samples: int = 10_000, **training: Any) -> memory.Span:
    """Of a model whose weights and samples are small beside nothing."""
    job = spec(stages=[{"name": "tune", "fineTune": {"epochs": 1, "batchSize": 64} | training}])
    cost = memory.Cost(weights=1000, kept=10, widest=2)
    costs = memory.Costs(cost, cost, cost)
    return memory.of_worker(job, job.stages[0], {"model": costs}, costs, memory.NOTHING, samples)


def test_what_costs_memory_is_counted() -> None:
    """AdamW keeps two moments a weight; a batch keeps what its samples leave behind; an average is one more copy."""
    assert worker().low == 1000 + 2000 + 1000
    assert worker(optimizer="SGD", momentum=0).low == 1000 + 1000
    assert worker(batchSize=1000).low == 1000 + 2000 + 10_000
    assert worker(batchSize=1000, gradientAccumulationSteps=4).low == 1000 + 2000 + 2500
    assert worker(batchSize=1000, samples=200).low == 1000 + 2000 + 2000, "a batch is no larger than the data"
    assert worker(strategy="FeatureExtraction").low == 1000
    assert worker(ema={}).likely > worker().likely
    assert worker(ema={}).low == worker().low, "the average may be made of what was freed"


@pytest.mark.parametrize(
    ("runtime", "workers"),
    [
        ({}, (1, 1, 1)),
        ({"nodes": 2, "processesPerNode": 4}, (8, 8, 8)),
        ({"nodes": 2, "resources": {"limits": {"nvidia.com/gpu": 8}}}, (16, 16, 16)),
        ({"nodes": 2, "processesPerNode": 1, "elastic": {"minNodes": 1, "maxNodes": 4}}, (1, 2, 4)),
    ],
)
def test_a_batch_is_shared_among_the_workers_that_the_manifest_asks_for(runtime: dict[str, Any], workers: tuple[int, ...]) -> None:
    for place in ("job", "stage"):
        stage = TUNE | ({"runtime": runtime} if place == "stage" else {})
        job = spec(stages=[stage], **({"runtime": runtime} if place == "job" else {}))
        found = memory.workers_of(job, job.stages[0])
        assert (found.low, found.likely, found.high) == workers
        assert memory.batches_of(job, job.stages[0], 10_000).high == 512 // workers[0]
