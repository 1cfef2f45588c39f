"""Digits as a person prepares them, for the loops by hand."""

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate
from torch.utils.data import TensorDataset

SAMPLES = 1293
"""As many as kompress trains on."""


def digits(side: int) -> TensorDataset:
    """Images (samples, 3, side, side) in [-1, 1], and their labels."""
    raw = load_digits()
    images = torch.from_numpy(raw.images).float()[:SAMPLES, None] / 16
    images = (interpolate(images, (side, side), mode="bilinear", antialias=True) - 0.5).div(0.5).expand(-1, 3, -1, -1).contiguous()
    return TensorDataset(images, torch.from_numpy(raw.target)[:SAMPLES])
