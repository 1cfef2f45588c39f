"""What the classification tasks share: scores, loss, figures, and what guessing would reach."""

from collections.abc import Mapping

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_jobs.measure import classification, multilabel
from kompress_jobs.measure.classification import Figures
from kompress_jobs.measure.predictions import Predictions
from kompress_jobs.samples import Samples

__all__ = ["accuracy", "chance", "figures", "logits", "loss", "predictions", "rows"]

AUXILIARY = 0.4
"""Weight of the loss of an auxiliary head (Inception; C. Szegedy et al., 2015, https://arxiv.org/abs/1409.4842)."""


def logits(outputs: object, samples: Samples | None = None) -> torch.Tensor:
    """The scores (batch, classes) among a model's outputs; auxiliary heads give a tuple in training."""
    found = outputs[0] if isinstance(outputs, tuple) else outputs
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        raise MethodRefused(
            f"the model returns {type(found).__name__} {tuple(getattr(found, 'shape', ()))}, not scores of shape (batch, classes)",
            hint="classification takes models that return one score a class",
            field="spec.model.source",
        )
    return found


def loss(
    outputs: object,
    targets: torch.Tensor,
    samples: Samples | None = None,
    *,
    weight: torch.Tensor | None = None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Mean cross-entropy, of several labels a sample (targets with two axes) binary cross-entropy; that of auxiliary heads is added."""
    auxiliary = [found for found in outputs[1:] if isinstance(found, torch.Tensor)] if isinstance(outputs, tuple) else []

    def of(scores: torch.Tensor) -> torch.Tensor:
        if targets.ndim == 1:
            return nn.functional.cross_entropy(scores.float(), targets, weight=weight, label_smoothing=smoothing)
        wanted = targets.float() * (1 - smoothing) + smoothing / 2
        return nn.functional.binary_cross_entropy_with_logits(scores.float(), wanted, pos_weight=weight)

    total = of(logits(outputs))
    for scores in auxiliary:
        total = total + AUXILIARY * of(scores)
    return total


def figures(scores: torch.Tensor, targets: torch.Tensor, labels: list[str], *, intervals: bool = True) -> Figures:
    """Figures of scores (samples, labels); targets with two axes are several labels a sample."""
    found: Figures = (classification if targets.ndim == 1 else multilabel).figures(scores, targets, labels, intervals=intervals)
    return found


def predictions(scores: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor, labels: list[str]) -> Predictions:
    """What scores (samples, labels) say of each sample; `positions` (samples,) in the split."""
    return (classification if targets.ndim == 1 else multilabel).predictions(scores, targets, positions, labels)


def rows(scores: torch.Tensor) -> torch.Tensor:
    """What two models of the same samples are compared by, (rows, classes): their scores."""
    return scores


def accuracy(values: Mapping[str, float]) -> float:
    """How good figures are, 1 at best: what searches, soups and early stopping look at."""
    return values["accuracy"]


def chance(targets: torch.Tensor, labels: list[str]) -> float:
    """Accuracy of guessing among labels that are equally frequent; of several labels a sample, of always naming the most frequent set."""
    if targets.ndim == 1:
        return 1 / len(labels)
    return float(targets.unique(dim=0, return_counts=True)[1].max()) / len(targets)
