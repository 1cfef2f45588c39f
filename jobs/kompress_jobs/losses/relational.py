"""Relational: samples that the teacher puts close together, or at some angle, lie so for the student.

W. Park et al., Relational Knowledge Distillation, 2019, https://arxiv.org/abs/1904.05068, RKD-DA: distances and angles, the latter
with twice the weight.
"""

import torch
from torch.nn.functional import huber_loss, normalize

ON = "features"
ANGLES = 2.0
"""Weight of the angles, the paper's."""


def loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Of the relations among the samples of a batch; channels of the two need not be equal in number."""
    own, theirs = embedding(student.float()), embedding(teacher.float())
    return huber_loss(distances(own), distances(theirs)) + ANGLES * huber_loss(angles(own), angles(theirs))


def embedding(features: torch.Tensor) -> torch.Tensor:
    """One vector a sample: the mean over places or tokens, (batch, channels)."""
    if features.ndim == 4:
        return features.mean((2, 3))
    return features.mean(1) if features.ndim == 3 else features


def distances(points: torch.Tensor) -> torch.Tensor:
    """Pairwise, divided by their mean, (batch, batch)."""
    squared = (points[:, None] - points[None]).square().sum(-1)
    found = (squared + 1e-12).sqrt() * (1 - torch.eye(len(points), device=points.device))
    return found / found.sum().div(max(1, len(points) * (len(points) - 1))).clamp(min=1e-12)


def angles(points: torch.Tensor) -> torch.Tensor:
    """Cosine of the angle at j in every triple i, j, k, (batch, batch, batch)."""
    sides = normalize(points[None] - points[:, None], dim=2)
    return torch.einsum("jid,jkd->jik", sides, sides)
