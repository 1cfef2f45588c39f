"""Suite `gpu`: one process on this machine's GPU, beside the same loop by hand; and what half precision gains there:  make perf-gpu"""

import json
import tempfile
from collections.abc import Iterator
from typing import Any

import torch

from perf.engine import jobs
from perf.engine.peers import figures, script
from perf.recorder import PAIRS, Goal, Result, Row, pairs
from perf.shipped import gains

AS_FAST = Goal(1.0, "at_least")
EPOCHS = 20
RESNET, VIT = {"source": "timm://resnet18"}, {"source": "timm://vit_base_patch16_224"}
LOOPS: tuple[tuple[str, dict[str, Any], int, dict[str, Any]], ...] = (
    ("ResNet-18 at 32x32", RESNET, 32, {}),
    ("ResNet-18 at 32x32, bf16, compiled", RESNET, 32, {"precision": "BF16", "compile": True}),
    ("ViT-B/16 at 224x224, bf16", VIT, 224, {"precision": "BF16"}),
)
"""What, model, side of an image, settings."""
BATCHES = (1, 32)


def results(count: int = PAIRS, epochs: int = EPOCHS) -> Iterator[Row]:
    """Samples a second, then latencies. Raises RuntimeError without a GPU."""
    if not torch.cuda.is_available():
        raise RuntimeError("there is no GPU here that PyTorch could use")
    for what, model, side, more in LOOPS:
        asked = {
            "model": model,
            "dataset": {"source": "builtin://digits", "imageSize": side},
            "settings": {"batchSize": 64, "learningRate": 1e-3} | more,
        }
        yield Result(f"training loop on a GPU, {what}", "samples/s", "by hand", AS_FAST, rates(asked, epochs, count))
    yield from latencies()


def rates(asked: dict[str, Any], epochs: int, count: int) -> tuple[tuple[float, float], ...]:
    """Pairs of samples a second, a process each."""

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return figures(script("loop_kompress", folder, epochs, json.dumps(asked)))["samples/s"]

    return pairs(ours, lambda: figures(script("loop_bare_gpu", epochs, json.dumps(asked)))["samples/s"], count)


def latencies() -> Iterator[Row]:
    """A request's time at each batch size beside the original's in FP32, interleaved by the export itself; and its accuracy."""
    target = {"device": "GPU", "batchSizes": list(BATCHES)}
    stages = [
        {"name": "adapt", "fineTune": {"epochs": 1, "batchSize": 64, "learningRate": 1e-4, "precision": "BF16"}},
        {"name": "ship", "export": {"formats": [{"type": "TorchExport", "precision": "FP16"}], "targets": [target]}},
    ]
    spec = {
        "task": "image-classification",
        "model": VIT,
        "dataset": {"source": "builtin://digits", "imageSize": 224},
        "runtime": {"processesPerNode": 1},
        "baseline": "adapt",
        "stages": stages,
    }
    made = jobs.run("gpu-latency", spec)["ship"]
    yield from gains("ViT-B/16 on a GPU, TorchExport in FP16", made.metrics, made.details, faster=1.0)
