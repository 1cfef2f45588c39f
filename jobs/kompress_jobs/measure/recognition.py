"""Figures of a speech recogniser: how many words and characters of the transcripts it gets wrong, and CTC's loss.

An error is a word (or character) that must be put in, taken out or exchanged to make one text the other (V. Levenshtein, 1966). Rates are
all errors over all words of the references, so they can exceed 1. Intervals are percentile bootstraps over samples with a fixed seed
(M. Bisani, H. Ney, Bootstrap Estimates for Confidence Intervals in ASR Performance Evaluation, 2004).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch

from kompress_jobs import ctc
from kompress_jobs.measure.classification import RESAMPLES, Figures, Interval
from kompress_jobs.measure.predictions import Predictions, Spoken
from kompress_jobs.samples import transcripts
from kompress_jobs.samples.transcripts import BLANK, SPACE

CHUNK = 64
"""Samples whose loss is computed at once: it takes memory for every pair of a frame and a token."""


@dataclass(frozen=True)
class Errors:
    """Of each sample, (samples,)."""

    words: torch.Tensor
    """Wrong ones."""
    of_words: torch.Tensor
    """That the transcripts have."""
    characters: torch.Tensor
    of_characters: torch.Tensor
    losses: torch.Tensor

    def rates(self, rows: torch.Tensor) -> dict[str, float]:
        """Figures of some samples."""
        return {
            "wer": float(self.words[rows].sum() / self.of_words[rows].sum().clamp(min=1)),
            "cer": float(self.characters[rows].sum() / self.of_characters[rows].sum().clamp(min=1)),
            "loss": float(self.losses[rows].mean()),
        }


def figures(scores: torch.Tensor, targets: torch.Tensor, labels: list[str], *, intervals: bool = True) -> Figures:
    """`scores` (samples, frames, tokens) as `ctc.within` gives them, `targets` (samples, longest)."""
    errors, samples = errors_of(scores, targets, labels), len(scores)
    values = errors.rates(torch.arange(samples))
    return Figures(values, bootstrap(errors) if intervals else {}, {}, samples)


def predictions(scores: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor, labels: list[str]) -> Predictions:
    """What the best path says of each sample; `positions` (samples,) in the split."""
    order = positions.argsort()
    scores, targets = scores[order], targets[order]
    errors = errors_of(scores, targets, labels)
    wrong, words, wrong_characters, characters = (
        part.long().numpy() for part in (errors.words, errors.of_words, errors.characters, errors.of_characters)
    )
    real = ctc.real(scores)
    surest = scores.double().log_softmax(2).amax(2) * real
    return Predictions(
        labels=labels,
        positions=positions[order].numpy(),
        names=[],
        targets=numpy.zeros(len(wrong), dtype=numpy.int64),
        predicted=(wrong > 0).astype(numpy.int64),
        confidence=(surest.sum(1) / real.sum(1)).exp().numpy(),
        losses=errors.losses.numpy(),
        spoken=Spoken(
            [transcripts.decode(row, labels) for row in targets.tolist()],
            [transcripts.decode(tokens, labels) for tokens in ctc.best_path(scores)],
            wrong,
            words,
            wrong_characters,
            characters,
        ),
    )


def errors_of(scores: torch.Tensor, targets: torch.Tensor, labels: Sequence[str]) -> Errors:
    """Compare what the best path says with the transcripts."""
    space = labels.index(SPACE) if SPACE in labels else BLANK
    rows = []
    for said, target in zip(ctc.best_path(scores), targets.tolist(), strict=True):
        true = [token for token in target if token != BLANK]
        true_words = words_of(true, space)
        rows.append([distance(true_words, words_of(said, space)), len(true_words), distance(true, said), len(true)])
    found = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    parts = zip(scores.split(CHUNK), targets.split(CHUNK), strict=True)
    return Errors(*found.T, torch.cat([ctc.losses(part.double(), target) for part, target in parts]))


def words_of(tokens: Sequence[int], space: int) -> list[tuple[int, ...]]:
    """Split at spaces."""
    found: list[list[int]] = [[]]
    for token in tokens:
        if token == space:
            found.append([])
        else:
            found[-1].append(token)
    return [tuple(word) for word in found if word]


def distance(true: Sequence[object], said: Sequence[object]) -> int:
    """Fewest changes that make one the other."""
    numbers: dict[object, int] = {}
    one, other = (numpy.array([numbers.setdefault(part, len(numbers)) for part in side], dtype=numpy.int64) for side in (true, said))
    places = numpy.arange(len(other) + 1)
    row = places
    for part in one:
        changed = numpy.minimum(row[1:] + 1, row[:-1] + (other != part))
        # What is put in costs one a place: the least of all that came before, counted on from there.
        row = numpy.minimum.accumulate(numpy.concatenate([row[:1] + 1, changed]) - places) + places
    return int(row[-1])


def bootstrap(errors: Errors) -> dict[str, Interval]:
    """Intervals over RESAMPLES draws of the samples with replacement."""
    generator, count = torch.Generator().manual_seed(0), len(errors.words)
    drawn = [errors.rates(torch.randint(count, (count,), generator=generator)) for _ in range(RESAMPLES)]
    found = {}
    for name in drawn[0]:
        low, high = numpy.quantile([entry[name] for entry in drawn], [0.025, 0.975])
        found[name] = float(low), float(high)
    return found
