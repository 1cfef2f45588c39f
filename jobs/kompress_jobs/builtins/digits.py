"""builtin://digits: 1,797 grey images of hand-written digits, 8 by 8, shipped with scikit-learn (no download).

E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998. Split by hash within each class: 20 % test,
10 % of the rest validation.
"""

import hashlib
import importlib.metadata
from pathlib import Path

import numpy
import torch

from kompress_api.places import Dataset
from kompress_jobs.samples.splits import HELD_OUT, Data, MemorySplit, cut

TEST_SHARE = 0.2


def made_of(dataset: Dataset) -> dict[str, str]:
    """What ships it."""
    return {"scikit-learn": importlib.metadata.version("scikit-learn")}


def load(dataset: Dataset, first: int | None = None) -> Data:
    """The data set in memory, all of it."""
    table = numpy.loadtxt(digits_file(), delimiter=",")
    images = table[:, :-1].reshape(-1, 8, 8)
    pixels = torch.from_numpy(images).mul(255 / 16).round().to(torch.uint8)[:, None]
    labels = [int(label) for label in table[:, -1]]
    size = dataset.image_size or pixels.shape[-1]
    resized = resize(pixels, size)
    names = [hashlib.sha256(image.tobytes()).hexdigest() + str(index) for index, image in enumerate(images)]
    rest, test = cut(names, labels, TEST_SHARE)
    kept, held = cut([names[i] for i in rest], [labels[i] for i in rest], HELD_OUT)
    train, validation = [rest[i] for i in kept], [rest[i] for i in held]
    target = torch.tensor(labels)
    parts = {"train": train, "validation": validation, "test": test}
    splits = {name: MemorySplit(resized[chosen], target[chosen]) for name, chosen in parts.items()}
    return Data([str(digit) for digit in range(10)], **splits, image_size=size, channels=1)


def digits_file() -> Path:
    """scikit-learn's table, 64 pixels and the label a row. Its own loader takes pandas and SciPy along, seconds in every process."""
    return Path(str(importlib.metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")))


def resize(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 images (samples, channels, side, side) -> (samples, channels, size, size)."""
    if pixels.shape[-1] == size:
        return pixels
    scaled = torch.nn.functional.interpolate(pixels.float(), (size, size), mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)
