"""What a training reads, step by step."""

from collections.abc import Iterator

import torch

from kompress_jobs.gang import Gang
from kompress_jobs.samples.splits import Split
from kompress_jobs.tasks import image_classification
from kompress_jobs.training import batches
from kompress_jobs.training.order import Order


def steps(split: Split, order: Order, start: int) -> Iterator[list[batches.Batch]]:
    """By a process alone."""
    return batches.batches(split, order, Gang(0, 1, torch.device("cpu")), image_classification, "None", 1, start)
