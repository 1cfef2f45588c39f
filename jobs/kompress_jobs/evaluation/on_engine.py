"""A lowered model in its engine: its figures on the test split, and real inputs for timing and calibration."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch

from kompress_jobs.bench import Bench, Measured
from kompress_jobs.description import Loaded
from kompress_jobs.engine import Engine
from kompress_jobs.measure.parity import Array
from kompress_jobs.preprocessing import Preprocessing
from kompress_jobs.samples import Inputs
from kompress_jobs.samples.splits import Split
from kompress_jobs.training.evaluate import with_predictions

BATCH = 128
CALIBRATION_BATCH = 32
"""Samples that ranges are found with at a time."""
LEAST_SAMPLES = 16
"""Fewer samples say too little about the ranges of activations."""


def score(bench: Bench, engine: Engine, found: Loaded, step: int | None, split: Any = None) -> Measured:
    """The engine's figures on a split (the test split); `step` is the only batch size that it takes."""
    split = split or bench.data.test
    (scores, positions), labels = scores_of(engine, found.description.preprocessing, split, step, bench.task), found.description.labels
    scored = bench.task.figures(scores, split.labels[positions], labels)
    return Measured.of(with_predictions(scored, bench.task, scores, positions, split, labels))


def scores_of(
    engine: Engine, preprocessing: Preprocessing, split: Split, step: int | None, task: ModuleType
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (samples, ...) and positions in the split (samples,); samples that can't be read are missing."""
    scores, positions = [], []
    for chunk in torch.arange(len(split)).split(step or BATCH):
        samples, seen = split.read(chunk)
        inputs = filled(preprocessing(samples), step or len(seen))
        scores.append(task.logits(torch.from_numpy(engine(arrays(inputs))[: len(seen)]), samples))
        positions.append(chunk[seen])
    return torch.cat(scores), torch.cat(positions)


def real_inputs(bench: Bench, found: Loaded, batch_size: int) -> list[Array]:
    """The first validation samples, repeated where there are fewer than a batch."""
    samples, _ = bench.data.validation.read(torch.arange(min(batch_size, len(bench.data.validation))))
    return arrays(filled(found.description.preprocessing(samples), batch_size))


class Calibration:
    """Batches of the first `samples` of train in an order that mixes the classes, prepared. They are read anew each time."""

    def __init__(self, bench: Bench, found: Loaded, samples: int) -> None:
        order = torch.randperm(len(bench.data.train), generator=torch.Generator().manual_seed(bench.input.seed))
        self.train, self.preprocessing = bench.data.train, found.description.preprocessing
        self.chunks = order[:samples].split(CALIBRATION_BATCH)

    def __iter__(self) -> Iterator[list[Array]]:
        for chunk in self.chunks:
            read, seen = self.train.read(chunk)
            if len(seen):
                yield arrays(self.preprocessing(read))


def filled(inputs: Inputs, batch_size: int) -> Inputs:
    """Samples repeated until there are `batch_size`."""
    rows = torch.arange(batch_size) % len(inputs[0])
    return tuple(part[rows] for part in inputs)


def arrays(inputs: Inputs) -> list[Array]:
    """As engines take them."""
    return [part.contiguous().numpy() for part in inputs]
