"""Lowered models side by side: accuracy of each on the test split, latency at batch 1 and one thread, two by two.

python race.py JSON: what a peer's script is given, and `files` by name (.onnx in ONNX Runtime, .xml in OpenVINO), `iterations`. Files of
kompress are called `ours...`; each other one runs against that of its own engine, else against `ours`.
"""

import time
from pathlib import Path
from typing import Any

import torch
from original import Original, answer, given

from kompress_jobs.exporters import onnx as onnx_runtime
from kompress_jobs.measure import latency

WARMUP = 20
OURS = "ours"


def engine(path: Path) -> Any:
    """Arrays to scores, one thread."""
    if path.suffix == ".onnx":
        return onnx_runtime.open_engine(path, 1)
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda arrays: request.infer(dict(enumerate(arrays)))[compiled.output(0)]


def race(original: Original) -> dict[str, Any]:
    test, prepare = original.data.test, original.description.preprocessing
    engines = {name: engine(Path(file)) for name, file in original.asked["files"].items()}
    right = dict.fromkeys(engines, 0)
    for rows in torch.arange(len(test)).split(64):
        samples, found = test.read(rows)
        inputs = [part.contiguous().numpy() for part in prepare(samples)]
        for name, run in engines.items():
            right[name] += int((torch.from_numpy(run(inputs)).argmax(1) == test.labels[rows[found]]).sum())
    one = [part.contiguous().numpy() for part in prepare(test.read(torch.arange(1))[0])]
    runs = {name: (lambda run=run: run(one)) for name, run in engines.items()}
    own = {Path(file).suffix: name for name, file in original.asked["files"].items() if name.startswith(OURS)}
    rivals = {name: own.get(Path(file).suffix, OURS) for name, file in original.asked["files"].items() if not name.startswith(OURS)}
    start, medians, slower = time.perf_counter(), {}, {}
    # Two at a time: of more, the first and the last of an alternating order would find their weights in the cache.
    for name, mine in rivals.items():
        taken = latency.interleaved({which: runs[which] for which in (mine, name)}, warmup=WARMUP, iterations=original.asked["iterations"])
        medians[name] = [latency.summarize(taken[which], 1)["latencyP50Ms"] for which in (mine, name)]
        slower[name] = latency.speedup(taken[name], taken[mine])
    return {
        "samples": len(test),
        "seconds": time.perf_counter() - start,
        "accuracy": {name: count / len(test) for name, count in right.items()},
        "latencyMs": medians,
        "bytes": {name: size(Path(file)) for name, file in original.asked["files"].items()},
        "rivals": rivals,
        "slower": slower,
    }


def size(path: Path) -> int:
    """Bytes of a model's files."""
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if weights.exists() else 0)


answer(lambda: race(given()))
