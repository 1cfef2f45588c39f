"""The batches of this process, step after step: sliced, read ahead where the data is on disk, moved and augmented."""

import functools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType

import torch

from kompress_jobs.gang import Gang
from kompress_jobs.samples import Samples, move
from kompress_jobs.samples.splits import MemorySplit, Split
from kompress_jobs.training.order import Order

AHEAD = 3
"""Steps that are read ahead where samples are decoded, or come from afar, as they are asked for."""
READERS = 2
"""Steps that are read at once: while one waits for a bucket, another is decoded."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch of one process."""

    samples: Samples
    """Augmented, on the device."""
    targets: torch.Tensor
    """See `splits.Split.labels`, on the device."""
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
    shuffled = functools.lru_cache(2)(order.shuffled)  # steps that are read ahead may be of the next epoch

    def read(step: int) -> list[Batch]:
        indices = gang.share(order.indices(step, shuffled(order.epoch(step))))
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
    readers = ThreadPoolExecutor(READERS, thread_name_prefix="read-ahead")
    coming: deque[Future[list[Batch]]] = deque()
    try:
        for step in range(start, order.steps):
            while len(coming) <= AHEAD and step + len(coming) < order.steps:
                coming.append(readers.submit(read, step + len(coming)))
            yield coming.popleft().result()
    finally:
        readers.shutdown(cancel_futures=True)
