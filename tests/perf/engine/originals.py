"""The models that methods are compared on, trained until they gain no more."""

from dataclasses import dataclass
from typing import Any

from minilm import NAME
from perf.engine import jobs
from perf.engine.jobs import Made

EXPORT = {"formats": [{"type": "ONNX"}], "targets": [{"device": "CPU", "threads": 1, "batchSizes": [1]}]}
INT8 = EXPORT | {"formats": [{"type": "ONNX"}, {"type": "OpenVINO"}], "verify": {"minAgreement": 0.8}}
"""Of quantized graphs accuracy decides: how often a few scores that lie close together change places is no matter here."""


@dataclass(frozen=True)
class Original:
    """A model, its data, how it is fine-tuned and how it is tuned again after a cut."""

    key: str
    """For names of jobs."""
    title: str
    task: str
    model: dict[str, Any]
    dataset: dict[str, Any]
    training: dict[str, Any]
    recovery: dict[str, Any]
    attends: bool = False
    """Whether it has attention heads."""

    def run(self, name: str, seed: int, stages: list[dict[str, Any]]) -> dict[str, Made]:
        """A job of one process that fine-tunes the original as `adapt` and goes on with `stages`."""
        adapt = {"name": "adapt", "fineTune": self.training}
        spec = {
            "task": self.task,
            "seed": seed,
            "model": self.model,
            "dataset": self.dataset,
            "runtime": {"processesPerNode": 1},
            "stages": [adapt, *stages],
        }
        return jobs.run(f"{self.key}-{name}-{seed}", spec)

    def given(self, made: Made, seed: int, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
        """What a peer's script is told, see scripts/original.py."""
        return {
            "bundle": str(made.folder),
            "task": self.task,
            "dataset": self.dataset,
            "seed": seed,
            "settings": settings,
            "epochs": settings["epochs"],
            **more,
        }


RESNET = Original(
    key="resnet",
    title="ResNet-18 on digits",
    task="image-classification",
    model={"source": "torchvision://resnet18"},
    dataset={"source": "builtin://digits", "imageSize": 32},
    training={"epochs": 15, "batchSize": 64, "learningRate": 1e-3},
    recovery={"epochs": 10, "batchSize": 64, "learningRate": 1e-3},
)
VIT = Original(
    key="vit",
    title="ViT on digits",
    task="image-classification",
    model={
        "source": "timm://vit_tiny_patch16_224",
        "arguments": {"img_size": 32, "patch_size": 4, "embed_dim": 96, "depth": 6, "num_heads": 6},
    },
    dataset={"source": "builtin://digits", "imageSize": 32},
    training={"epochs": 40, "batchSize": 64, "learningRate": 1e-3},
    recovery={"epochs": 15, "batchSize": 64, "learningRate": 5e-4},
    attends=True,
)
MINILM = Original(
    key="minilm",
    title="MiniLM on docstrings",
    task="text-classification",
    model={"source": f"hf://{NAME}", "pretrained": True},
    dataset={"source": "builtin://docstrings", "maxLength": 64},
    training={"epochs": 3, "batchSize": 32, "learningRate": 1e-4, "precision": "BF16"},
    recovery={"epochs": 2, "batchSize": 32, "learningRate": 1e-4, "precision": "BF16"},
    attends=True,
)
WORDS = Original(
    key="words",
    title="ResNet-10 on spoken words",
    task="audio-classification",
    model={"source": "timm://resnet10t", "arguments": {"in_chans": 1, "channels": [24, 48, 96, 192], "stem_width": 16}},
    dataset={"source": "builtin://words"},
    training={"epochs": 8, "batchSize": 64, "learningRate": 3e-3},
    recovery={"epochs": 4, "batchSize": 64, "learningRate": 2e-3},
)
