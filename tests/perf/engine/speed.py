"""Samples a second of fine-tuning, two processes, beside Hugging Face's Trainer and timm's parts put together as its script does."""

import csv
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minilm import NAME
from perf.engine.images import write_digits
from perf.engine.peers import figures, script
from perf.recorder import PAIRS, Goal, Result, Row, pairs

AS_FAST = Goal(1.0, "at_least")


def results(count: int = PAIRS, texts: int = 1280, images: int = 128, epochs: int = 1) -> Iterator[Row]:
    """One row a peer; before the epochs that are timed comes one that is not."""
    with tempfile.TemporaryDirectory() as folder:
        source = write_texts(Path(folder) / "texts", texts)
        dataset = {"source": f"file://{source}", "format": "csv", "inputColumn": "text", "labelColumn": "subject", "maxLength": 64}
        settings = {"batchSize": 32, "learningRate": 1e-4, "precision": "BF16"}
        text = {
            "task": "text-classification",
            "model": {"source": f"hf://{NAME}", "pretrained": True},
            "dataset": dataset,
            "settings": settings,
        }
        what = "fine-tune MiniLM on docstrings, bf16, 2 processes"
        yield Result(what, "samples/s", "Hugging Face Trainer", AS_FAST, rates(text, "fine_tune_trainer", "trainer", epochs, count))
        root = write_digits(Path(folder) / "images", side=32, each=images, suffix=".png")
        image = {
            "model": {"source": "timm://resnet18"},
            "dataset": {"source": f"file://{root}", "format": "imagefolder"},
            "settings": {"batchSize": 64, "learningRate": 1e-3},
        }
        what = "fine-tune ResNet-18 on a folder of digits, 2 processes"
        yield Result(
            what, "samples/s", "timm's loader, optimizer and schedule", AS_FAST, rates(image, "fine_tune_timm", None, 3 * epochs, count)
        )


def rates(asked: dict[str, Any], script_of_peer: str, peer: str | None, epochs: int, count: int) -> tuple[tuple[float, float], ...]:
    """Pairs of samples a second."""

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return figures(script("loop_kompress", folder, epochs, json.dumps(asked), processes=2))["samples/s"]

    def peers() -> float:
        with tempfile.TemporaryDirectory() as folder:
            said = script(script_of_peer, folder, json.dumps({"epochs": epochs, **asked}), peer=peer, processes=2)
            return figures(said)["samples/s"]

    return pairs(ours, peers, count)


def write_texts(folder: Path, count: int) -> Path:
    """Docstrings of the standard library as train.csv, validation.csv and test.csv."""
    from kompress_jobs.builtins.docstrings import rows

    folder.mkdir(parents=True)
    found = rows()[:: max(1, len(rows()) * 4 // (5 * count))]
    parts = {"train": found[:count], "validation": found[count : count + count // 8], "test": found[count + count // 8 :]}
    for split, chosen in parts.items():
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "subject"])
            writer.writerows([row.text, row.subject] for row in chosen)
    return folder
