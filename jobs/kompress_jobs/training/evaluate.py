"""Scores of a model on a split, each rank for its share of the samples."""

import dataclasses
from types import ModuleType

import torch
from torch import nn

from kompress_jobs.gang import Gang
from kompress_jobs.measure.classification import Figures
from kompress_jobs.modules import layout
from kompress_jobs.preprocessing import Preprocessing
from kompress_jobs.samples import move, place
from kompress_jobs.samples.splits import Split

BATCH = 256


def predict(
    model: nn.Module, split: Split, task: ModuleType, preprocessing: Preprocessing, gang: Gang, rows: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Collective: scores (samples, ...) float32 and positions in the split (samples,), both on the CPU, the same on every rank.

    Of all samples, or of those at `rows`; samples that can't be read are missing. The model is left in evaluation mode.
    """
    model.eval()
    scores, positions = [], []
    sample = place(preprocessing.sample(), gang.device)
    with layout.computing(model, sample), torch.inference_mode():
        for chunk in gang.share(torch.arange(len(split)) if rows is None else rows).split(BATCH):
            samples, found = split.read(chunk)
            if len(found):
                samples = move(samples, gang.device)
                inputs = place(preprocessing(samples), gang.device)
                scores.append(task.logits(model(*inputs), samples).float().cpu())
                positions.append(chunk[found])
    shape = scores[0].shape[1:] if scores else ()
    sizes = gang.gather(torch.tensor([[*shape, 0, 0][:2]])).amax(0)  # of a rank that has no sample, those of the others
    mine = torch.cat(scores) if scores else torch.zeros(0, *sizes[sizes > 0].tolist())
    indices = torch.cat(positions) if positions else torch.zeros(0, dtype=torch.int64)
    return gang.gather(mine), gang.gather(indices)


def evaluate(
    model: nn.Module, split: Split, task: ModuleType, preprocessing: Preprocessing, labels: list[str], gang: Gang, *, intervals: bool = True
) -> Figures:
    """Collective: the task's figures of a model on a split, the same on every rank; with intervals what it said of each sample, too."""
    scores, positions = predict(model, split, task, preprocessing, gang)
    found: Figures = task.figures(scores, split.labels[positions], labels, intervals=intervals)
    return with_predictions(found, task, scores, positions, split, labels) if intervals else found


def with_predictions(
    found: Figures, task: ModuleType, scores: torch.Tensor, positions: torch.Tensor, split: Split, labels: list[str]
) -> Figures:
    """The figures with what was said of each sample, by its name."""
    said = task.predictions(scores, split.labels[positions], positions, labels)
    return dataclasses.replace(found, predictions=said.named(split))
