"""The batches of this process, step after step: sliced, read ahead where the data is on disk, moved and augmented."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType

import torch

from kompress_jobs.data import MemorySplit, Split
from kompress_jobs.samples import Samples, move
from kompress_jobs.training.gang import Gang
from kompress_jobs.training.order import Order


@dataclass(frozen=True)
class Batch:
    """A micro-batch of one process."""

    samples: Samples
    """Augmented, on the device."""
    targets: torch.Tensor
    """See `data.Split.labels`, on the device."""
    indices: torch.Tensor
    """(samples,), int64, positions in the split, on the CPU."""
    share: float
    """Factor that makes the sum over micro-batches, averaged over ranks, the mean over the global batch."""
    partners: torch.Tensor | None = None
    """Targets of what each sample was mixed with (`mixing`), as `targets`; None where nothing was."""
    own: float = 1.0
    """Share that a mixed sample kept of itself."""


def batches(
    data: Split, order: Order, gang: Gang, task: ModuleType, augmentation: str, accumulation: int, start: int
) -> Iterator[list[Batch]]:
    """From step `start` on: the micro-batches of this rank, a list for each step."""
    cached: tuple[int, torch.Tensor] = (-1, torch.empty(0))

    def read(step: int) -> list[Batch]:
        nonlocal cached
        if cached[0] != order.epoch(step):
            cached = order.epoch(step), order.shuffled(order.epoch(step))
        indices = gang.share(order.indices(step, cached[1]))
        draws = gang.share(task.draw(augmentation, order.batch, order.generator(step)))
        return [
            micro(*part) for part in zip(indices.tensor_split(accumulation), draws.tensor_split(accumulation), strict=True) if len(part[0])
        ]

    def micro(indices: torch.Tensor, draws: torch.Tensor) -> Batch:
        samples, found = data.read(indices)
        indices = indices[found]
        samples = task.augment(move(samples, gang.device), augmentation, draws[found])
        targets = data.labels[indices].to(gang.device, non_blocking=True)
        return Batch(samples, targets, indices, len(indices) * gang.world_size / order.batch)

    if isinstance(data, MemorySplit):
        for step in range(start, order.steps):
            yield read(step)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead:
        coming = ahead.submit(read, start)
        for step in range(start, order.steps):
            current = coming.result()
            if step + 1 < order.steps:
                coming = ahead.submit(read, step + 1)
            yield current
