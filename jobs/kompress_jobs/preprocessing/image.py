"""image: uint8 images of the model's side; channels, to [0, 1], (x - mean) / std."""

from typing import Literal

import torch

from kompress_jobs import preprocessing
from kompress_jobs.samples import Inputs, Samples

LUMINANCE = (0.299, 0.587, 0.114)


class Preprocessing(preprocessing.Preprocessing):
    """What is done to a decoded image before the model sees it."""

    type: Literal["image"] = "image"
    """This module."""
    image_size: int
    """Side in pixels: the shorter side is resized to it (bilinear, antialiased), the longer one cropped in the centre."""
    channels: int
    """1: luminance; 3: RGB, a grey image is repeated."""
    mean: list[float]
    """One a channel, of values in [0, 1]."""
    std: list[float]
    """One a channel, of values in [0, 1]."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("input",)

    def __call__(self, samples: Samples) -> Inputs:
        """uint8 images (batch, 1 or 3, size, size) -> float32 (batch, channels, size, size)."""
        images = samples
        assert isinstance(images, torch.Tensor)
        if images.shape[1] == 3 and self.channels == 1:
            weights = torch.tensor(LUMINANCE, device=images.device).view(1, 3, 1, 1)
            images = (images * weights).sum(1, keepdim=True)
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        return (((images / 255 - mean) / std).contiguous(),)  # one grey channel is repeated by broadcasting

    def sample(self, batch: int = 2) -> Inputs:
        return (torch.zeros(batch, self.channels, self.image_size, self.image_size),)
