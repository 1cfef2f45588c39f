"""The mel scale: how the ear spaces frequencies (S. S. Stevens, J. Volkmann, E. B. Newman, 1937), as Kaldi has it."""

import functools
import math

import torch

LOWEST = 20.0
"""Hertz; nothing below is heard."""


@functools.lru_cache(maxsize=8)
def filters(bands: int, n_fft: int, sample_rate: int, device: torch.device) -> torch.Tensor:
    """(bands, n_fft // 2 + 1): triangles of equal width in mel from LOWEST to half the rate, each as high as 1."""
    edges = torch.linspace(to_mel(LOWEST), to_mel(sample_rate / 2), bands + 2, dtype=torch.float64)
    frequencies = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
    mels = 1127 * torch.log1p(frequencies / 700)
    left, centre, right = (edges[start : start + bands, None] for start in range(3))
    rising, falling = (mels - left) / (centre - left), (right - mels) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0).float().to(device)


def to_mel(hertz: float) -> float:
    return 1127 * math.log1p(hertz / 700)
