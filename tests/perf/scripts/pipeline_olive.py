"""What Olive does with a fine-tuned model on its way to a CPU: it quantizes its graph, statically, or texts at run time, as its pages
recommend. It does not distill, and prunes nothing but language models.

python pipeline_olive.py JSON: what a peer's script is given, and `graph`, `samples`, `written` (a folder)
"""

from pathlib import Path
from typing import Any

import torch
from olive.data.registry import Registry
from olive.workflows import run
from original import Original, answer, given
from torch.utils.data import Dataset

TEXT = "text-classification"


class Samples(Dataset):
    """Training samples by the names of the graph's inputs."""

    def __init__(self, original: Original) -> None:
        train, seed = original.data.train, torch.Generator().manual_seed(original.asked["seed"])
        chosen = torch.randperm(len(train), generator=seed)[: original.asked["samples"]]
        samples, found = train.read(chosen)
        self.names = original.description.preprocessing.names
        self.inputs, self.labels = original.description.preprocessing(samples), train.labels[chosen[found]]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[dict[str, torch.Tensor], int]:
        return {name: part[index] for name, part in zip(self.names, self.inputs, strict=True)}, int(self.labels[index])


def lower(original: Original) -> dict[str, Any]:
    asked, folder = original.asked, Path(original.asked["written"])
    Registry.register_dataset("calibration")(lambda **_: Samples(original))
    static = {"type": "OnnxStaticQuantization", "data_config": "calibration", "activation_type": "uint8", "per_channel": True}
    run(
        {
            "input_model": {"type": "ONNXModel", "model_path": asked["graph"]},
            "systems": {
                "here": {"type": "LocalSystem", "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}
            },
            "data_configs": [
                {
                    "name": "calibration",
                    "load_dataset_config": {"type": "calibration"},
                    "pre_process_data_config": {"type": "skip_pre_process"},
                    "dataloader_config": {"batch_size": 32},
                }
            ],
            "passes": {"quantize": {"type": "OnnxDynamicQuantization"} if asked["task"] == TEXT else static},
            "host": "here",
            "target": "here",
            "cache_dir": str(folder / "cache"),
            "output_dir": str(folder / "out"),
        }
    )
    return {"file": str(min((folder / "out").rglob("*.onnx")))}


answer(lambda: lower(given()))
