"""DKD: KD taken apart into how sure the teacher is of the true class and how it ranks the others; the second part weighs more.

B. Zhao et al., Decoupled Knowledge Distillation, 2022, https://arxiv.org/abs/2203.08679. Reference: ResNet32x4 to ResNet8x4 on
CIFAR-100, KD 73.33, DKD 76.32 (mdistiller), with the weights below.
"""

import torch
from torch.nn.functional import binary_cross_entropy, kl_div, log_softmax, softmax

from kompress_api.errors import MethodRefused

ON = "scores"
TARGET, OTHERS = 1.0, 8.0
"""alpha and beta of the paper, as its authors use them for CIFAR-100."""


def loss(student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 * (TARGET * KL of [true, not true] + OTHERS * KL among the other classes); `targets` (batch,) are class indices."""
    if targets.ndim != 1:
        raise MethodRefused("DKD needs one true class a sample", hint="use KD", field="losses")
    own, theirs = student.float() / temperature, teacher.float() / temperature
    true = torch.zeros_like(own, dtype=torch.bool).scatter_(1, targets[:, None], True)
    p, q = (softmax(scores, 1).masked_select(true).clamp(1e-7, 1 - 1e-7) for scores in (own, theirs))
    binary = binary_cross_entropy(p, q) - binary_cross_entropy(q, q)
    others = [scores.masked_select(~true).view(len(scores), -1) for scores in (own, theirs)]
    ranked = kl_div(log_softmax(others[0], 1), log_softmax(others[1], 1), reduction="batchmean", log_target=True)
    return (TARGET * binary + OTHERS * ranked) * temperature**2
