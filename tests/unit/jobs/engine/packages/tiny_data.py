"""A user's own data sets, as factories of python:// make them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image

LABELS = ["dark", "light"]


def grey(number: int, kind: str) -> Any:
    """An 8 by 8 image whose grey tells its number."""
    array = numpy.full((8, 8), 10 * number % 250, dtype="uint8")
    return {
        "grey": array,
        "colour": numpy.stack([array] * 3, 2),
        "tensor": torch.from_numpy(array)[None],
        "pillow": Image.fromarray(array),
    }[kind]


class Lazy(Sequence[Any]):
    """Samples that are made when they are asked for, and counts how often."""

    def __init__(self, count: int, kind: str) -> None:
        self.count, self.kind, self.made = count, kind, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:  # type: ignore[override]
        self.made += 1
        if self.kind == "text":
            return f"text {index}"
        if self.kind == "wave":
            return numpy.full(1600, (index + 1) / 32, dtype="float32")
        if self.kind == "slower":
            return numpy.full(800, (index + 1) / 32, dtype="float32"), 8000
        return grey(index, self.kind)


def load(kind: str, count: int = 20) -> dict[str, Any]:
    return {"labels": LABELS, "train": (Lazy(count, kind), [number % 2 for number in range(count)])}


def splits(kind: str = "grey") -> dict[str, Any]:
    labels = numpy.arange(10) % 2
    return {name: (Lazy(10, kind), labels) for name in ("learn", "validation", "exam")}


def wrong(what: str) -> Any:
    good = Lazy(4, "grey")
    return {
        "list": [1, 2],
        "no train": {"test": (good, [0, 1, 0, 1])},
        "no pair": {"train": good},
        "short": {"train": (good, [0, 1])},
        "range": {"labels": LABELS, "train": (good, [0, 1, 7, -1])},
        "nan": {"labels": LABELS, "train": (good, [0, 1, None, float("nan")])},
        "kind": {"train": ([{"a": 1}] * 4, [0, 1, 0, 1])},
    }[what]


def files(folder: str) -> dict[str, Any]:
    paths = sorted(Path(folder).iterdir())
    return {"train": (paths, [path.stem.partition("-")[0] for path in paths])}


def tagged(count: int = 40) -> dict[str, Any]:
    return {"labels": LABELS, "train": (Lazy(count, "grey"), [[0], [1], [0, 1], []] * (count // 4))}
