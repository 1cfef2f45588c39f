"""One training as the loop takes it: what is trained on what, and how far the stage is when it begins."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from kompress_api.training import Training
from kompress_jobs.samples.splits import Split
from kompress_jobs.training.batches import Batch
from kompress_jobs.training.order import Order

Objective = Callable[[nn.Module, Batch], torch.Tensor]
"""Mean loss of a micro-batch; the module is the one to call (wrapped, in training mode)."""


@dataclass(frozen=True)
class Plan:
    """What is trained on what."""

    settings: Training
    epochs: int
    data: Split
    seed: int
    task: ModuleType
    objective: Objective
    validate: Callable[[nn.Module], dict[str, float]]
    """Collective: figures on the validation split by name, the same on every rank."""
    first_step: int = 0
    """Steps of trainings before this one in the same stage."""
    all_steps: int = 0
    """Steps of the whole stage, for progress; 0: those of this training."""
    stage_memory: dict[str, Any] | None = None
    """What the stage must know to come back here, JSON; goes into checkpoints."""

    @property
    def order(self) -> Order:
        return Order(len(self.data), self.settings.batch_size, self.epochs, self.seed)
