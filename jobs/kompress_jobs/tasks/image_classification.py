"""image-classification: one label an image.

Images stay uint8 until they meet a model, because each model has its own normalisation (a student and its teacher see the
same augmented image). Random numbers come in from outside, one row a sample, so that an augmented image depends on the
seed and the step alone and not on the number of processes.
"""

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_jobs.bundle import Preprocessing
from kompress_jobs.measure import classification

LUMINANCE = (0.299, 0.587, 0.114)
DRAWS = {"None": 0, "Light": 2, "Standard": 4}
"""Random numbers a sample."""
SHIFT = 1 / 16
"""Light: largest shift as a share of the side, at least one pixel."""
CROP = (0.35, 1.0)
"""Standard: share of the area that a random crop keeps."""

figures = classification.figures


def draw(mode: str, samples: int, generator: torch.Generator) -> torch.Tensor:
    """Random numbers in [0, 1) for `samples` images, (samples, DRAWS[mode])."""
    return torch.rand(samples, DRAWS[mode], generator=generator)


def augment(images: torch.Tensor, mode: str, draws: torch.Tensor) -> torch.Tensor:
    """Augment uint8 images (batch, channels, size, size); `draws` are their rows of `draw`."""
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


def prepare(images: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 images (batch, 1 or 3, size, size) -> what the model takes, float32 (batch, channels, size, size)."""
    if images.shape[1] == 3 and preprocessing.channels == 1:
        weights = torch.tensor(LUMINANCE, device=images.device).view(1, 3, 1, 1)
        images = (images * weights).sum(1, keepdim=True)
    mean = torch.tensor(preprocessing.mean, device=images.device).view(1, -1, 1, 1)
    std = torch.tensor(preprocessing.std, device=images.device).view(1, -1, 1, 1)
    return (images / 255 - mean) / std  # one grey channel is repeated by broadcasting


def logits(outputs: object) -> torch.Tensor:
    """The scores (batch, classes) among a model's outputs; auxiliary heads give a tuple in training."""
    found = outputs[0] if isinstance(outputs, tuple) else outputs
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        raise MethodRefused(
            f"the model returns {type(found).__name__} {tuple(getattr(found, 'shape', ()))}, not scores of shape (batch, classes)",
            hint="image-classification takes models that return one score a class",
            field="spec.model.source",
        )
    return found


def loss(outputs: object, targets: torch.Tensor, *, weight: torch.Tensor | None = None, smoothing: float = 0.0) -> torch.Tensor:
    """Mean cross-entropy; auxiliary heads (Inception: 0.4 each, Szegedy et al., 2015) are added."""
    auxiliary = [found for found in outputs[1:] if isinstance(found, torch.Tensor)] if isinstance(outputs, tuple) else []

    def cross_entropy(scores: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(scores.float(), targets, weight=weight, label_smoothing=smoothing)

    total = cross_entropy(logits(outputs))
    for scores in auxiliary:
        total = total + 0.4 * cross_entropy(scores)
    return total
