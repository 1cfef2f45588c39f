"""Feature: a layer of the student, seen through a learned projector, gives what a layer of the teacher gives.

A. Romero et al., FitNets: Hints for Thin Deep Nets, 2015, https://arxiv.org/abs/1412.6550. Both are scaled to unit variance by the
teacher's own, so that the loss means the same at every layer.
"""

import torch
from torch import nn
from torch.nn.functional import mse_loss

from kompress_jobs.distillation.taps import aligned

ON = "features"


def projector(student: torch.Tensor, teacher: torch.Tensor) -> nn.Module:
    """From the student's channels to the teacher's; a 1x1 convolution, or a linear layer over tokens."""
    if student.ndim == 3:
        return nn.Linear(student.shape[-1], teacher.shape[-1])
    kind = {2: nn.Linear, 4: nn.Conv2d}[student.ndim]
    return kind(student.shape[1], teacher.shape[1], *([1] if student.ndim == 4 else []))


def loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference, `student` already projected; in units of the teacher's variance."""
    own, theirs = aligned(student.float(), teacher.float())
    return mse_loss(own, theirs) / theirs.var().clamp(min=1e-6)
