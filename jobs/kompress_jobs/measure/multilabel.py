"""Figures of a classifier whose samples carry any number of labels: each label is a question of its own, answered yes above a score of 0.

Macro figures are means over the labels that the split has, micro figures count all questions alike (M.-L. Zhang, Z.-H. Zhou, A Review
on Multi-Label Learning Algorithms, 2014). Average precision is the area under the steps of precision over recall, as in scikit-learn.
"""

import numpy
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from kompress_jobs.measure.classification import RESAMPLES, Figures, Interval, quantiles, wilson
from kompress_jobs.measure.predictions import Marked, Predictions


def figures(scores: torch.Tensor, targets: torch.Tensor, labels: list[str], *, intervals: bool = True) -> Figures:
    """`scores` (samples, labels), `targets` (samples, labels) bool.

    accuracy: the share of samples all of whose labels are right; recall, f1 (macro); f1Micro; meanAveragePrecision; loss: mean binary
    cross-entropy.
    """
    samples = len(scores)
    said = scores > 0
    losses = binary_cross_entropy_with_logits(scores.double(), targets.double(), reduction="none").mean(1)
    right = int((said == targets).all(1).sum())
    precisions = average_precisions(scores, targets)
    values = {"accuracy": right / samples} | means(said, targets)
    values |= {"meanAveragePrecision": over_present(precisions, targets), "loss": float(losses.mean())}
    if not intervals:
        return Figures(values, {}, {}, samples)
    found: dict[str, Interval] = {"accuracy": wilson(right, samples)} | bootstrap(scores, targets, losses)
    per_class = {}
    for index, label in enumerate(labels):
        count, hits = int(targets[:, index].sum()), int((said & targets)[:, index].sum())
        low, high = wilson(hits, count)
        per_class[label] = {"recall": hits / count if count else 0.0, "low": low, "high": high, "samples": count}
        per_class[label]["averagePrecision"] = float(precisions[index])
    return Figures(values, found, per_class, samples)


def predictions(scores: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor, labels: list[str]) -> Predictions:
    """What the scores say of each sample; `positions` (samples,) in the split."""
    order = positions.argsort()
    scores, targets = scores[order].double(), targets[order]
    said = scores > 0
    return Predictions(
        labels=labels,
        positions=positions[order].numpy(),
        names=[],
        targets=numpy.zeros(len(scores), dtype=numpy.int64),
        predicted=(said != targets).any(1).long().numpy(),
        confidence=logsigmoid(scores.abs()).mean(1).exp().numpy(),
        losses=binary_cross_entropy_with_logits(scores, targets.double(), reduction="none").mean(1).numpy(),
        marked=Marked(targets.numpy(), said.numpy()),
    )


def means(said: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """recall, f1 (macro over the labels that are there) and f1Micro."""
    hits = (said & targets).sum(0).double()
    yes, true = said.sum(0).double(), targets.sum(0).double()
    f1 = 2 * hits / (yes + true).clamp(min=1)
    micro = 2 * hits.sum() / (yes.sum() + true.sum()).clamp(min=1)
    return {
        "recall": over_present(hits / true.clamp(min=1), targets),
        "f1": over_present(f1, targets),
        "f1Micro": float(micro),
    }


def over_present(values: torch.Tensor, targets: torch.Tensor) -> float:
    """The mean over labels that some sample has."""
    present = targets.any(0)
    return float(values[present].mean()) if present.any() else 0.0


def average_precisions(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of each label, (labels,); samples with the same score count as one step."""
    ordered, order = scores.double().sort(dim=0, descending=True)
    hits = targets.gather(0, order).double().cumsum(0)
    ranks = torch.arange(1, len(scores) + 1, dtype=torch.float64)[:, None]
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    precision = hits / ranks
    # Recall rises from the last step to this one; within a step of equal scores only its end counts.
    kept = torch.where(last, hits, 0.0)
    before = torch.cat([torch.zeros(1, hits.shape[1], dtype=torch.float64), kept[:-1]]).cummax(0).values
    rise = torch.where(last, hits - before, 0.0)
    return (precision * rise).sum(0) / targets.sum(0).clamp(min=1)


def bootstrap(scores: torch.Tensor, targets: torch.Tensor, losses: torch.Tensor) -> dict[str, Interval]:
    """Intervals of all but accuracy over RESAMPLES draws of the samples with replacement."""
    generator = torch.Generator().manual_seed(0)
    drawn_values: dict[str, list[torch.Tensor]] = {}
    for _ in range(RESAMPLES):
        drawn = torch.randint(len(scores), (len(scores),), generator=generator)
        found = means(scores[drawn] > 0, targets[drawn])
        found["meanAveragePrecision"] = over_present(average_precisions(scores[drawn], targets[drawn]), targets[drawn])
        found["loss"] = float(losses[drawn].mean())
        for name, value in found.items():
            drawn_values.setdefault(name, []).append(torch.tensor(value, dtype=torch.float64))
    return {name: quantiles(values) for name, values in drawn_values.items()}
