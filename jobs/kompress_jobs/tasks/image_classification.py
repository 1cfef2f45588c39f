"""image-classification: one label an image.

Random numbers of the augmentation come in from outside, one row a sample, so that an augmented image depends on the seed
and the step alone and not on the number of processes.
"""

import copy

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_jobs.classification import accuracy, chance, figures, logits, loss, predictions, rows
from kompress_jobs.models import Pretrained
from kompress_jobs.modules.backbones import first_taken
from kompress_jobs.preprocessing.image import Preprocessing
from kompress_jobs.samples import Samples
from kompress_jobs.samples.splits import Data

__all__ = ["accuracy", "augment", "chance", "draw", "figures", "logits", "loss", "predictions", "preprocessing_for", "refitted", "rows"]

DRAWS = {"None": 0, "Light": 2, "Standard": 4}
"""Random numbers a sample."""
MIXES = True
"""Whether two samples have one between them (mixup, CutMix)."""
SHIFT = 1 / 16
"""Light: largest shift as a share of the side, at least one pixel."""
SIDES = (16, 32, 64, 96, 128, 160, 192, 224, 256, 299, 336, 384, 448, 512)
"""Sizes that models are built for."""
CROP = (0.35, 1.0)
"""Standard: share of the area that a random crop keeps."""


def preprocessing_for(model: nn.Module, data: Data, pretrained: Pretrained, *, field: str) -> Preprocessing:
    """The data's side, the channels that the model takes, the normalisation that its weights were made with.

    Raises MethodRefused for images that the model can't take.
    """
    channels = accepted_channels(model, data.image_size, field=field)
    mean, std = (list(values) if channels == 3 else [sum(values) / 3] for values in (pretrained.mean, pretrained.std))
    return Preprocessing(image_size=data.image_size, channels=channels, mean=mean, std=std)


def refitted(preprocessing: Preprocessing, model: nn.Module, data: Data, *, field: str) -> Preprocessing:
    """The preprocessing of a bundle for data whose images have another side; raises MethodRefused where the model can't take them."""
    if data.image_size == preprocessing.image_size:
        return preprocessing
    accepted_channels(model, data.image_size, field=field)
    return preprocessing.model_copy(update={"image_size": data.image_size})


def accepted_channels(model: nn.Module, size: int, *, field: str) -> int:
    """3 or 1, whichever the model takes first; raises MethodRefused with the model's own words when it takes neither."""
    choices = (3, 1)
    found = first_taken(model, [(torch.zeros(2, channels, size, size),) for channels in choices])
    if isinstance(found, Exception):
        raise MethodRefused(
            f"the model takes no images of {size}x{size} pixels: {found}", hint=size_hint(model, size), field=field
        ) from found
    return choices[found]


def size_hint(model: nn.Module, size: int) -> str:
    """What to do about images of a size that the model can't be trained on: the next larger one that it takes, else the next smaller."""
    sides = [side for side in SIDES if side > size] + [side for side in reversed(SIDES) if side < size]
    for side in sides:
        choices = [(torch.zeros(2, channels, side, side),) for channels in (3, 1)]
        if all(isinstance(first_taken(copy.deepcopy(model), choices, training=mode), int) for mode in (False, True)):
            return f"set dataset.imageSize: {side}, which it takes"
    return "set dataset.imageSize to a size that it takes"


def draw(mode: str, samples: int, generator: torch.Generator) -> torch.Tensor:
    """Random numbers in [0, 1) for `samples` images, (samples, DRAWS[mode])."""
    return torch.rand(samples, DRAWS[mode], generator=generator)


def augment(images: Samples, mode: str, draws: torch.Tensor) -> Samples:
    """Augment uint8 images (batch, channels, size, size); `draws` are their rows of `draw`."""
    assert isinstance(images, torch.Tensor)
    if mode == "Light":
        return shift(images, draws)
    if mode == "Standard":
        return crop_and_flip(images, draws)
    return images


def shift(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Move each image by up to SHIFT of its side, the border repeated."""
    batch, _, height, width = images.shape
    most = max(1, round(height * SHIFT))
    offsets = (draws * (2 * most + 1)).long().clamp(max=2 * most).to(images.device) - most
    rows = (torch.arange(height, device=images.device) + offsets[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + offsets[:, 1:]).clamp(0, width - 1)
    samples = torch.arange(batch, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def crop_and_flip(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Random resized crop (square, CROP of the area) and a flip of every other image."""
    draws = draws.to(images.device)
    scale = (CROP[0] + (CROP[1] - CROP[0]) * draws[:, 0]).sqrt()
    room = 1 - scale
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = scale * torch.where(draws[:, 3] < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = scale
    theta[:, 0, 2] = room * (2 * draws[:, 1] - 1)
    theta[:, 1, 2] = room * (2 * draws[:, 2] - 1)
    grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    moved = nn.functional.grid_sample(images.float(), grid, align_corners=False, padding_mode="reflection")
    return moved.round().clamp(0, 255).to(torch.uint8)
