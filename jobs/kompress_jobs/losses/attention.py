"""Attention: the student looks where the teacher looks: where in the image, or at which tokens, its activations are strong.

S. Zagoruyko, N. Komodakis, Paying More Attention to Attention, 2017, https://arxiv.org/abs/1612.03928, activation-based, p = 2.
"""

import torch
from torch.nn.functional import normalize

from kompress_jobs.distillation.taps import aligned

ON = "features"


def loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of the squared distance between both maps at unit length."""
    own, theirs = aligned(student.float(), teacher.float())
    return (attention_map(own) - attention_map(theirs)).square().sum(1).mean()


def attention_map(features: torch.Tensor) -> torch.Tensor:
    """(batch, channels, height, width) or (batch, tokens, channels) -> (batch, places), of unit length."""
    strength = features.square().mean(1 if features.ndim == 4 else -1)
    return normalize(strength.flatten(1), dim=1)
