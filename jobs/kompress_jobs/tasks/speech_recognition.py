"""speech-recognition: what is said in a clip, character by character, by CTC (`ctc.py`).

Models give scores (batch, frames, tokens); tokens are CTC's blank and the characters of train's transcripts
(`samples/transcripts.py`), which become the head's outputs. Models that take one axis hear the waveform; others get a log-mel
spectrogram (batch, 1, mels, frames). Augmentation is that of audio-classification, but for the shift in time, which must not
lose what the transcript says.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_jobs import ctc
from kompress_jobs.description import Loaded
from kompress_jobs.measure.recognition import figures, predictions
from kompress_jobs.models import Pretrained
from kompress_jobs.modules.backbones import first_taken
from kompress_jobs.preprocessing import Preprocessing, spectrogram, waveform
from kompress_jobs.samples import Clips, Samples, transcripts
from kompress_jobs.samples.splits import Data, called
from kompress_jobs.tasks.audio_classification import (
    DRAWS,
    SHIFT,
    augmented,
    draw,
    not_taken,
    refitted,
    require_sound,
)

__all__ = [
    "DRAWS",
    "accuracy",
    "augment",
    "chance",
    "draw",
    "figures",
    "logits",
    "loss",
    "predictions",
    "preprocessing_for",
    "refitted",
    "rows",
]

TRANSCRIPTS = True
"""Targets are transcripts, not labels."""
HEARD = "use a model that takes spectrograms (batch, 1, 64, time), or waveforms (batch, samples)"
SAMPLES_TOLD = 1000
"""Training samples whose length is looked at."""
MOST_TOO_LONG = 0.5
"""Share of train's transcripts that may be longer than the model has frames for."""
NO_MEANING = {
    "label_smoothing": "CTC's targets are paths, not classes",
    "class_weights": "CTC's targets are paths, not classes",
    "DKD": "a frame has no true token, as CTC sums over all paths",
    "Ensemble": "CTC models write a token at frames of their own choice, so the mean of their frames is no vote",
}
"""Settings and methods, and why this task has no use for them."""


def preprocessing_for(model: nn.Module, data: Data, pretrained: Pretrained, *, field: str) -> Preprocessing:
    """A spectrogram of one channel, normalised as the data is; else the waveform.

    Raises MethodRefused for data without sound, and in the model's own words when it takes neither.
    """
    require_sound(data)
    plain = spectrogram.for_data(data, 1).model_copy(update={"image_size": None})  # stretched, frames would be no time
    choices: list[Preprocessing] = [plain, waveform.Preprocessing(sample_rate=data.sample_rate, length=data.clip_samples)]
    found = first_taken(model, [choice.sample() for choice in choices])
    if isinstance(found, Exception):
        raise not_taken(choices[0], found, field=field, hint=HEARD) from found
    chosen = choices[found]
    return chosen.measured(data.train) if isinstance(chosen, spectrogram.Preprocessing) else chosen


def require_fit(model: nn.Module, preprocessing: Preprocessing, data: Data, *, field: str) -> None:
    """Raise MethodRefused for a model that gives no frames, or too few of them for most transcripts."""
    with torch.no_grad():
        frames = scores_of(model.eval()(*preprocessing.sample(1)), field=field).shape[1]
    needed = transcripts.frames_needed(data.train.labels)
    long = needed > frames
    if long.float().mean() > MOST_TOO_LONG:
        raise MethodRefused(
            f"the model gives {frames} frames for a clip of {data.clip_samples / data.sample_rate:g} s, and {int(long.sum())} of "
            f"{len(needed)} transcripts need more, up to {int(needed.max())}: CTC writes one token a frame at most",
            hint="use a model with a smaller stride, or a longer dataset.clipSeconds where clips are cut",
            field=field,
        )


def remarks_on_data(data: Data) -> Iterator[str]:
    """Which transcripts hold what can't be learned."""
    for name, split in (("validation", data.validation), ("test", data.test)):
        if rows := (split.labels == transcripts.UNKNOWN).any(1).nonzero().flatten().tolist():
            yield (
                f"{len(rows)} transcripts of split {name} hold characters that train never has, the first is "
                f"{called(split, rows[0])}: their words count as errors"
            )


def remarks_on_model(found: Loaded, data: Data) -> Iterator[str]:
    """How many of the first training transcripts are longer than the model has frames for; their loss is 0."""
    rows = torch.arange(min(len(data.train), SAMPLES_TOLD))
    samples, seen = data.train.read(rows)
    assert isinstance(samples, Clips)
    with torch.no_grad():
        frames = scores_of(found.model.eval()(*found.description.preprocessing.sample(1))).shape[1]
    if cut := int((samples.lengths == samples.waves.shape[1]).sum()):
        yield (
            f"{cut} of {len(seen)} training clips that were looked at are as long as clips may be: of those that were cut the "
            "transcript is longer than what is heard (raise dataset.clipSeconds)"
        )
    where = rows[seen][unlearnable(samples, data.train.labels[rows[seen]], frames)].tolist()
    if where:
        yield (
            f"{len(where)} of {len(seen)} training transcripts that were looked at are longer than the model has frames for, "
            f"the first is {called(data.train, where[0])}: nothing is learned from them"
        )


def unlearnable(clips: Clips, targets: torch.Tensor, frames: int) -> torch.Tensor:
    """Which transcripts are longer than their clip has frames, (samples,), bool: CTC learns nothing from them."""
    return transcripts.frames_needed(targets) > ctc.frames_of(clips, frames)


def scores_of(outputs: object, *, field: str = "spec.model.source") -> torch.Tensor:
    """The scores among a model's outputs; raises MethodRefused for any other shape."""
    found = outputs[0] if isinstance(outputs, tuple) else outputs
    if not isinstance(found, torch.Tensor) or found.ndim != 3:
        raise MethodRefused(
            f"the model returns {type(found).__name__} {tuple(getattr(found, 'shape', ()))}, not scores of shape (batch, frames, tokens)",
            hint="speech-recognition takes models that score every frame: hf:// with a CTC head, or your own by python://",
            field=field,
        )
    return found


def logits(outputs: object, samples: Samples) -> torch.Tensor:
    """Scores (batch, frames, tokens), certain of nothing behind each clip's end."""
    assert isinstance(samples, Clips)
    return ctc.within(scores_of(outputs), samples)


def loss(
    outputs: object, targets: torch.Tensor, samples: Samples, *, weight: torch.Tensor | None = None, smoothing: float = 0.0
) -> torch.Tensor:
    """Mean of `ctc.losses`; there are no class weights and no smoothing (`NO_MEANING`)."""
    return ctc.losses(logits(outputs, samples), targets).mean()


def rows(scores: torch.Tensor) -> torch.Tensor:
    """What two models of the same samples are compared by: the scores of real frames, (frames, tokens)."""
    return scores[ctc.real(scores)]


def accuracy(values: Mapping[str, float]) -> float:
    """Of words: 1 - wer, which is below 0 where a model says more wrong words than there are."""
    return 1 - values["wer"]


def chance(targets: torch.Tensor, labels: list[str]) -> float:
    """Accuracy of words of a model that says nothing."""
    return 0.0


def augment(clips: Samples, mode: str, draws: torch.Tensor) -> Samples:
    """Augment clips; `draws` are their rows of `draw`."""
    return augmented(clips, mode, draws, delay)


def delay(clips: Clips, draws: torch.Tensor) -> Clips:
    """Let each clip begin later by up to SHIFT of the clips' common length, as far as its end stays inside."""
    width = clips.waves.shape[1]
    room = (width - clips.lengths).clamp(min=0, max=round(width * SHIFT))
    offsets = (draws * (room + 1)).long()
    sources = torch.arange(width, device=clips.waves.device) - offsets[:, None]
    waves = clips.waves.gather(1, sources.clamp(min=0)) * (sources >= 0)
    return Clips(waves, clips.lengths + offsets)
