"""Which samples a step sees, as pure functions of the seed and the step.

Nothing here depends on the number of processes: the global batch of a step is the same on one process and on sixteen, and
each takes its share of it. So a run that is resumed, on whatever number of processes, goes on with the same samples, the
same augmentation and the same dropout without having to remember them.
"""

import math
from dataclasses import dataclass

import torch

from kompress_jobs.chance import mix


@dataclass(frozen=True)
class Order:
    """The order of the samples over a training of `epochs` passes."""

    samples: int
    """Samples of the training split."""
    batch_size: int
    """Global batch asked for; a smaller data set makes it smaller."""
    epochs: int
    seed: int

    @property
    def batch(self) -> int:
        """Global batch of every step; what does not fill a batch at the end of an epoch is left to the next shuffle."""
        return min(self.batch_size, self.samples)

    @property
    def steps_per_epoch(self) -> int:
        return self.samples // self.batch

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    def epoch(self, step: int) -> int:
        """Epoch (from 0) that the step (from 0) belongs to."""
        return step // self.steps_per_epoch

    def generator(self, step: int) -> torch.Generator:
        """Random numbers of a step's augmentation."""
        return torch.Generator().manual_seed(mix(self.seed, 1, step))

    def shuffled(self, epoch: int) -> torch.Tensor:
        """The samples of an epoch in order, (samples,)."""
        return torch.randperm(self.samples, generator=torch.Generator().manual_seed(mix(self.seed, 0, epoch)))

    def indices(self, step: int, shuffled: torch.Tensor) -> torch.Tensor:
        """The global batch of a step, out of its epoch's order, (batch,)."""
        start = step % self.steps_per_epoch * self.batch
        return shuffled[start : start + self.batch]


def learning_rate(schedule: str, step: int, steps: int, warmup_fraction: float) -> float:
    """Factor of the peak learning rate at a step: a linear rise from 0, then Cosine (to 0), Linear (to 0) or Constant."""
    warmup = round(steps * warmup_fraction)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    return {"Cosine": 0.5 * (1 + math.cos(math.pi * done)), "Linear": 1 - done, "Constant": 1.0}[schedule]
