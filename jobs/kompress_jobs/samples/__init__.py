"""Samples as a data set gives them, before any model sees them: images, clips or texts.

Each model prepares them in its own way (`preprocessing/`), because a student and its teacher may want different sizes,
normalisations or tokens, and must yet see the very same (augmented) sample.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Clips(NamedTuple):
    """Sound."""

    waves: torch.Tensor
    """(clips, longest), float32 in [-1, 1], one channel, zero behind a clip's end."""
    lengths: torch.Tensor
    """(clips,), int64."""


Samples = torch.Tensor | Clips | list[str]
"""Images are uint8, (samples, channels, height, width)."""
Inputs = tuple[torch.Tensor, ...]
"""What a model is called with, `model(*inputs)`; the first axis of each is the batch."""


def count(samples: Samples) -> int:
    """How many."""
    return len(samples.lengths) if isinstance(samples, Clips) else len(samples)


def pick(samples: Samples, indices: torch.Tensor) -> Samples:
    """Those at `indices`, (chosen,), int64."""
    if isinstance(samples, list):
        return [samples[index] for index in indices.tolist()]
    return Clips(samples.waves[indices], samples.lengths[indices]) if isinstance(samples, Clips) else samples[indices]


def move(samples: Samples, device: torch.device) -> Samples:
    """On this device; texts stay where they are until they are numbers."""
    if isinstance(samples, list):
        return samples
    if isinstance(samples, Clips):
        return Clips(*(part.to(device, non_blocking=True) for part in samples))
    return samples.to(device, non_blocking=True)


def place(inputs: Inputs, device: torch.device) -> Inputs:
    """A model's inputs on this device."""
    return tuple(part.to(device, non_blocking=True) for part in inputs)


def join(parts: Sequence[Samples]) -> Samples:
    """One after the other. Clips of unlike lengths are filled up to the longest."""
    if isinstance(parts[0], list):
        return [text for part in parts for text in part]
    if isinstance(parts[0], Clips):
        longest = max(part.waves.shape[1] for part in parts)
        waves = [torch.nn.functional.pad(part.waves, (0, longest - part.waves.shape[1])) for part in parts]
        return Clips(torch.cat(waves), torch.cat([part.lengths for part in parts]))
    return torch.cat(list(parts))


def fitted_waves(waves: torch.Tensor, length: int) -> torch.Tensor:
    """(clips, any) cut or filled up with silence to (clips, `length`)."""
    return torch.nn.functional.pad(waves, (0, max(0, length - waves.shape[1])))[:, :length]
