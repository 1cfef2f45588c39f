"""Static int8 of the same fine-tuned model from the same calibration samples, for ONNX Runtime beside a script around its own quantizer,
for OpenVINO beside nncf: accuracy on the test split, and latency at batch 1 and one thread, interleaved by twos in one process."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perf.engine.originals import EXPORT, INT8, MINILM, RESNET, WORDS, Original
from perf.engine.peers import answer, as_torch_writes
from perf.recorder import Goal, Row, Told, compared_shares

SAMPLES = 512
AS_FAST = Goal(1.0, "at_least")
ITERATIONS = 1000
PEERS = (("ONNX Runtime static", "int8_onnx_runtime", ".onnx"), ("nncf, OpenVINO", "int8_nncf", ".xml"))


def results(originals: tuple[Original, ...] = (RESNET, MINILM, WORDS), iterations: int = ITERATIONS) -> Iterator[Row]:
    """Two rows for each original and peer."""
    stages = [
        {"name": "plain", "from": "adapt", "export": EXPORT},
        {"name": "int8", "from": "adapt", "quantize": {"mode": "Static", "calibration": {"numSamples": SAMPLES}}},
        {"name": "ship", "from": "int8", "export": INT8},
    ]
    for original in originals:
        made = original.run("int8", 0, stages)
        given = original.given(made["adapt"], 0, original.training)
        with tempfile.TemporaryDirectory() as folder:
            graph = as_torch_writes(made["plain"].folder / "model.onnx", folder)
            files = {"ours": str(made["ship"].folder / "model.onnx"), "ours, OpenVINO": str(made["ship"].folder / "model1.xml")}
            for peer, script, suffix in PEERS:
                written = str(Path(folder) / f"{script}{suffix}")
                found = answer(script, {**given, "graph": graph, "samples": SAMPLES, "written": written})
                files[peer] = found["file"]
            found = answer("race", {**given, "files": files, "iterations": iterations}, threads=1)
        yield from rows(f"int8 of {original.title}", found)


def rows(what: str, found: dict[str, Any]) -> Iterator[Row]:
    """Accuracy and latency beside each peer, on its own engine; what `race` said."""
    for peer, slower in found["slower"].items():
        rival = found["rivals"][peer]
        yield compared_shares(f"{what}: accuracy", found["accuracy"][rival], peer, found["accuracy"][peer], found["samples"])
        interval = slower["low"], slower["high"]
        own, theirs = found["latencyMs"][peer]
        yield Told(
            f"{what}: latency (above 1: ours is faster)",
            "ms",
            own,
            peer,
            theirs,
            slower["value"],
            interval,
            AS_FAST,
            AS_FAST.reached(*interval),
        )
