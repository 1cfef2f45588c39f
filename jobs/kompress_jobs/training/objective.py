"""The task's own loss as an objective of the loop."""

from types import ModuleType

import torch
from torch import nn

from kompress_api.training import Training
from kompress_jobs.preprocessing import Preprocessing
from kompress_jobs.samples import place
from kompress_jobs.training.batches import Batch
from kompress_jobs.training.plan import Objective


def task_objective(task: ModuleType, preprocessing: Preprocessing, *, smoothing: float, weight: torch.Tensor | None) -> Objective:
    """Cross-entropy (or what the task has) with class weights (classes,) and label smoothing."""

    def objective(model: nn.Module, batch: Batch) -> torch.Tensor:
        outputs = model(*place(preprocessing(batch.samples), batch.targets.device))
        return task_loss(task, outputs, batch, weight=weight, smoothing=smoothing)

    return objective


def task_loss(task: ModuleType, outputs: object, batch: Batch, *, weight: torch.Tensor | None, smoothing: float) -> torch.Tensor:
    """The task's loss of a batch; of mixed samples that for each of the two targets, by their shares."""
    loss: torch.Tensor = task.loss(outputs, batch.targets, batch.samples, weight=weight, smoothing=smoothing)
    if batch.partners is None:
        return loss
    other: torch.Tensor = task.loss(outputs, batch.partners, batch.samples, weight=weight, smoothing=smoothing)
    return batch.own * loss + (1 - batch.own) * other


def class_weights(settings: Training, labels: torch.Tensor, classes: int, device: torch.device) -> torch.Tensor | None:
    """Balanced: samples / (classes * samples of the class), 1 on average; a class without samples weighs 1. None when off.

    Of several labels a sample: what a yes weighs beside a no of that label, samples without it / samples with it.
    """
    if settings.class_weights == "None":
        return None
    if labels.ndim == 2:
        positives = labels.sum(0).float()
        return torch.where(positives > 0, (len(labels) - positives) / positives.clamp(min=1), 1.0).to(device)
    counts = torch.bincount(labels, minlength=classes).float()
    return torch.where(counts > 0, counts.sum() / (classes * counts.clamp(min=1)), 1.0).to(device)
