"""Connectionist temporal classification: scores of frames (batch, frames, tokens), of which the first token says nothing.

A. Graves et al., Connectionist Temporal Classification, 2006, https://www.cs.toronto.edu/~graves/icml_2006.pdf. Clips are filled up to
one length, so a model gives every clip equally many frames. Those behind a clip's end are made to say for certain that nothing was
said (`within`); so scores say by themselves which frames are real, wherever they are stored, compared or imitated.
"""

import torch
from torch.nn.functional import ctc_loss

from kompress_jobs.samples import Clips, transcripts
from kompress_jobs.samples.transcripts import BLANK

CERTAIN = 8192.0
"""Score of the blank behind a clip's end, beside 0 for all else: exact in every type, and more than a model gives."""


def within(scores: torch.Tensor, clips: Clips) -> torch.Tensor:
    """Scores in float32, certain of nothing behind each clip's end."""
    places = torch.arange(scores.shape[1], device=scores.device)
    real = places < frames_of(clips, scores.shape[1]).to(scores.device)[:, None]
    silence = torch.zeros(scores.shape[2], device=scores.device)
    silence[BLANK] = CERTAIN
    return torch.where(real[..., None], scores.float(), silence)


def frames_of(clips: Clips, frames: int) -> torch.Tensor:
    """How many of a model's frames each clip has: their share of the samples, so that no model must name its stride."""
    return (clips.lengths * frames / clips.waves.shape[1]).ceil().long().clamp(1, frames)


def real(scores: torch.Tensor) -> torch.Tensor:
    """The frames within their clip, (batch, frames), bool."""
    return scores[..., BLANK] < CERTAIN


def losses(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log likelihood of each transcript over its length, (batch,); 0 where it has more tokens than the clip has frames."""
    tokens, lengths = transcripts.learnable(targets)
    told = scores.log_softmax(2).transpose(0, 1)
    found = ctc_loss(told, tokens, real(scores).sum(1), lengths, blank=BLANK, reduction="none", zero_infinity=True)
    return found / lengths.clamp(min=1)


def best_path(scores: torch.Tensor) -> list[list[int]]:
    """Tokens of each clip: the best of every frame, repeats and blanks left out (section 3.2)."""
    best = scores.argmax(2)
    fresh = torch.ones_like(best, dtype=torch.bool)
    fresh[:, 1:] = best[:, 1:] != best[:, :-1]
    return [row[kept].tolist() for row, kept in zip(best, fresh & (best != BLANK), strict=True)]
