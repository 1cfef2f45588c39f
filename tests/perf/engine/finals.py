"""Whole pipelines for three modalities, from a converged original to a small ONNX graph: what the final model gains, and what Olive makes
of the same original. The jobs lie in `manifests/`; their goals are those of the rows."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from perf.engine import jobs
from perf.engine.jobs import Made
from perf.engine.peers import answer, as_torch_writes
from perf.engine.quantized import ITERATIONS, SAMPLES, rows
from perf.recorder import Goal, Row, Told
from perf.shipped import gains

MANIFESTS = Path(__file__).parent / "manifests"
FINALS = (("digits", "ResNet-18 on digits", 8.0), ("docstrings", "MiniLM on docstrings", 4.0), ("words", "ResNet-18 on spoken words", 6.0))
"""Manifest, what it is about, and how many times faster the final model must be."""
PEER = "Olive: int8; it neither distills nor prunes"
AS_SMALL = Goal(1.0, "at_least")


def results(names: tuple[str, ...] = tuple(name for name, _, _ in FINALS), iterations: int = ITERATIONS) -> Iterator[Row]:
    """The rows of these jobs: first what all of them gain."""
    done = []
    for name, title, faster in FINALS:
        if name in names:
            spec = YAML(typ="safe", pure=True).load(MANIFESTS / f"{name}.yaml")["spec"]
            made = jobs.run(f"final-{name}", spec)
            done.append((title, spec, made))
            yield from gains(f"{title}'s final ONNX model", made["ship"].metrics, made["ship"].details, faster=faster)
    for title, spec, made in done:
        yield from beside_olive(title, spec, made, iterations)


def beside_olive(title: str, spec: dict[str, Any], made: dict[str, Made], iterations: int) -> Iterator[Row]:
    """Accuracy, latency and bytes of both final models."""
    given = {
        "bundle": str(made["adapt"].folder),
        "task": spec["task"],
        "dataset": spec["dataset"],
        "seed": 0,
        "settings": spec["stages"][0]["fineTune"],
    }
    what = f"whole pipeline of {title}"
    with tempfile.TemporaryDirectory() as folder:
        graph = as_torch_writes(made["plain"].folder / "model.onnx", folder)
        lowered = answer("pipeline_olive", {**given, "graph": graph, "samples": SAMPLES, "written": folder}, peer="olive")
        files = {"ours": str(made["ship"].folder / "model.onnx"), PEER: lowered["file"]}
        found = answer("race", {**given, "files": files, "iterations": iterations}, threads=1)
    yield from rows(what, found)
    ours, theirs = found["bytes"]["ours"], found["bytes"][PEER]
    ratio = theirs / ours
    yield Told(f"{what}: size", "bytes", ours, PEER, theirs, ratio, (ratio, ratio), AS_SMALL, AS_SMALL.reached(ratio, ratio))
