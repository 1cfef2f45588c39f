"""Figures of a classifier from its scores: accuracy, recall, F1, loss, top-5, each with a 95 % interval, and recall per class.

Shares have Wilson intervals (E. B. Wilson, 1927); macro figures and the loss have percentile bootstrap intervals with a
fixed seed (B. Efron, 1979).
"""

import math
from dataclasses import dataclass

import torch

from kompress_jobs.measure.predictions import Predictions

Z = 1.959963984540054
"""Of the 95 % interval."""
RESAMPLES = 500
Interval = tuple[float, float]


@dataclass(frozen=True)
class Figures:
    """What a model scores on a split."""

    values: dict[str, float]
    """accuracy, recall (macro), f1 (macro), loss (mean cross-entropy, natural logarithm), top5 (with more than 5 classes)."""
    intervals: dict[str, Interval]
    """95 %, by the same names."""
    per_class: dict[str, dict[str, float]]
    """Label -> recall, low, high, samples."""
    samples: int
    predictions: Predictions | None = None
    """What was said of every sample, where that is kept."""


def wilson(hits: float, samples: int) -> Interval:
    """The 95 % interval of a share."""
    if not samples:
        return 0.0, 1.0
    share, square = hits / samples, Z * Z
    centre = (share + square / (2 * samples)) / (1 + square / samples)
    half = Z / (1 + square / samples) * math.sqrt(share * (1 - share) / samples + square / (4 * samples * samples))
    return max(0.0, centre - half), min(1.0, centre + half)


def macro(confusion: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Macro recall and macro F1 of confusion matrices (..., true, predicted); classes without samples do not count."""
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()
    true, predicted = confusion.sum(-1).double(), confusion.sum(-2).double()
    present = true > 0
    recall = torch.where(present, hits / true.clamp(min=1), 0.0)
    f1 = torch.where(present, 2 * hits / (true + predicted).clamp(min=1), 0.0)
    classes = present.sum(-1).clamp(min=1)
    return recall.sum(-1) / classes, f1.sum(-1) / classes


def figures(scores: torch.Tensor, targets: torch.Tensor, labels: list[str], *, intervals: bool = True) -> Figures:
    """`scores` (samples, classes), `targets` (samples,)."""
    samples, classes = scores.shape
    predicted = scores.argmax(1)
    losses = torch.nn.functional.cross_entropy(scores.double(), targets, reduction="none")
    pairs = targets * classes + predicted
    confusion = torch.bincount(pairs, minlength=classes * classes).view(classes, classes)
    recall, f1 = macro(confusion)
    hits = int((predicted == targets).sum())
    values = {"accuracy": hits / samples, "recall": float(recall), "f1": float(f1), "loss": float(losses.mean())}
    if classes > 5:
        top5 = int((scores.topk(5).indices == targets[:, None]).any(1).sum())
        values["top5"] = top5 / samples
    if not intervals:
        return Figures(values, {}, {}, samples)
    found: dict[str, Interval] = {"accuracy": wilson(hits, samples)}
    if classes > 5:
        found["top5"] = wilson(top5, samples)
    found |= bootstrap(pairs, losses, classes)
    true = confusion.sum(1)
    per_class = {}
    for index, label in enumerate(labels):
        count, right = int(true[index]), int(confusion[index, index])
        low, high = wilson(right, count)
        per_class[label] = {"recall": right / count if count else 0.0, "low": low, "high": high, "samples": count}
    return Figures(values, found, per_class, samples)


def predictions(scores: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor, labels: list[str]) -> Predictions:
    """What the scores say of each sample; `positions` (samples,) in the split."""
    order = positions.argsort()
    scores, targets = scores[order].double(), targets[order]
    predicted = scores.argmax(1)
    return Predictions(
        labels=labels,
        positions=positions[order].numpy(),
        names=[],
        targets=targets.numpy(),
        predicted=predicted.numpy(),
        confidence=scores.softmax(1).gather(1, predicted[:, None])[:, 0].numpy(),
        losses=torch.nn.functional.cross_entropy(scores, targets, reduction="none").numpy(),
        top5=(scores.topk(5).indices == targets[:, None]).any(1).numpy() if scores.shape[1] > 5 else None,
    )


def bootstrap(pairs: torch.Tensor, losses: torch.Tensor, classes: int) -> dict[str, Interval]:
    """Intervals of recall, F1 and loss over RESAMPLES draws of the samples with replacement."""
    generator = torch.Generator().manual_seed(0)
    recalls, f1s, means = [], [], []
    for _ in range(RESAMPLES):
        drawn = torch.randint(len(pairs), (len(pairs),), generator=generator)
        confusion = torch.bincount(pairs[drawn], minlength=classes * classes).view(classes, classes)
        recall, f1 = macro(confusion)
        recalls.append(recall)
        f1s.append(f1)
        means.append(losses[drawn].mean())
    return {name: quantiles(values) for name, values in (("recall", recalls), ("f1", f1s), ("loss", means))}


def quantiles(values: list[torch.Tensor]) -> Interval:
    """The middle 95 %."""
    low, high = torch.stack(values).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
