"""KD: the student imitates the teacher's softened scores.

G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531.
Reference: ResNet-34 to ResNet-18 on ImageNet 69.76 -> 71.37 (torchdistill).
"""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div, log_softmax

from kompress_api.errors import MethodRefused
from kompress_jobs import ctc

ON = "scores"


def loss(student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 * KL(teacher || student) of both logits (batch, classes) divided by T, mean over the batch, in nats.

    Where a sample carries several labels (targets with two axes) each is a yes or no of its own: the mean over them. T^2 keeps the
    gradient's size when T changes, so that alpha means the same at every temperature. Scores of frames (batch, frames, tokens): the mean
    over those within their clip.
    """
    if student.ndim == 3:
        if student.shape != teacher.shape:
            raise MethodRefused(
                f"the student gives {student.shape[1]} frames of a clip, its teacher {teacher.shape[1]}: they can't be compared",
                hint="use a student with the teacher's stride",
                field="losses",
            )
        return of_each_frame(student.float() / temperature, teacher.float() / temperature, ctc.real(student).sum()) * temperature**2
    if targets.ndim == 2:
        return of_each_label(student.float() / temperature, teacher.float() / temperature) * temperature**2
    softened = log_softmax(student.float() / temperature, dim=1)
    target = log_softmax(teacher.float() / temperature, dim=1)
    return kl_div(softened, target, reduction="batchmean", log_target=True) * temperature**2


def of_each_frame(own: torch.Tensor, theirs: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Mean KL over `frames`; behind a clip's end both are certain, and differ by nothing."""
    return kl_div(log_softmax(own, 2), log_softmax(theirs, 2), reduction="sum", log_target=True) / frames.clamp(min=1)


def of_each_label(own: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Mean KL of two yes-or-no answers a label."""
    wanted = theirs.sigmoid()
    least = binary_cross_entropy_with_logits(theirs, wanted)
    return binary_cross_entropy_with_logits(own, wanted) - least
