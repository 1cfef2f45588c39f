"""audio-classification: one label a clip.

Image models hear through a log-mel spectrogram, models that take one axis get the waveform. Augmentation works on the waveform, so that
it is the same whatever the model sees. Its random numbers come in from outside, one row a sample, so that an augmented clip depends on
the seed and the step alone and not on the number of processes.
"""

from collections.abc import Callable

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_jobs.classification import accuracy, chance, figures, logits, loss, predictions, rows
from kompress_jobs.models import Pretrained
from kompress_jobs.modules.backbones import first_taken
from kompress_jobs.preprocessing import Preprocessing, spectrogram, waveform
from kompress_jobs.samples import Clips, Samples
from kompress_jobs.samples.splits import Data

__all__ = ["accuracy", "augment", "chance", "draw", "figures", "logits", "loss", "predictions", "preprocessing_for", "refitted", "rows"]

DRAWS = {"None": 0, "Light": 2, "Standard": 6}
"""Random numbers a sample."""
SHIFT = 0.1
"""Light: largest shift in time as a share of the clips' common length, silence coming in."""
GAIN = 6.0
"""Light: largest gain or loss in dB."""
TIME_MASK = 0.2
"""Standard: longest silenced stretch as a share of the clip."""
BAND_MASK = 0.25
"""Standard: widest silenced band as a share of the mel scale."""


def preprocessing_for(model: nn.Module, data: Data, pretrained: Pretrained, *, field: str) -> Preprocessing:
    """A spectrogram with the channels that the model takes, normalised as the data is; else the waveform.

    Raises MethodRefused for data without sound, and in the model's own words when it takes neither.
    """
    require_sound(data)
    choices: list[Preprocessing] = [spectrogram.for_data(data, 3), spectrogram.for_data(data, 1)]
    choices.append(waveform.Preprocessing(sample_rate=data.sample_rate, length=data.clip_samples))
    found = first_taken(model, [choice.sample() for choice in choices])
    if isinstance(found, Exception):
        raise not_taken(choices[0], found, field=field) from found
    chosen = choices[found]
    return chosen.measured(data.train) if isinstance(chosen, spectrogram.Preprocessing) else chosen


def refitted(preprocessing: Preprocessing, model: nn.Module, data: Data, *, field: str) -> Preprocessing:
    """The preprocessing of a bundle for clips of another length; raises MethodRefused where the model can't take them."""
    require_sound(data)
    fitting: Preprocessing = preprocessing.fitted(data)  # type: ignore[attr-defined]
    if fitting == preprocessing:
        return preprocessing
    device = next(model.parameters()).device
    found = first_taken(model, [tuple(part.to(device) for part in fitting.sample())])
    if isinstance(found, Exception):
        raise not_taken(fitting, found, field=field) from found
    return fitting


def require_sound(data: Data) -> None:
    """Raise MethodRefused for images or texts."""
    if not data.clip_samples:
        raise MethodRefused(
            "the data holds no sound",
            hint="use builtin://words or format: audiofolder, or the task of your data",
            field="spec.dataset.source",
        )


STRETCHED = "set dataset.imageSize to the side that it takes, spectrograms are stretched to it; or another dataset.clipSeconds"


def not_taken(preprocessing: Preprocessing, problem: Exception, *, field: str, hint: str = STRETCHED) -> MethodRefused:
    """The error for a model that takes no input that can be made of the clips."""
    shape = "x".join(str(size) for size in preprocessing.sample(1)[0].shape[1:])
    return MethodRefused(
        f"the model does not take the data's clips ({shape}): {problem}",
        hint=hint,
        field=field,
    )


def draw(mode: str, samples: int, generator: torch.Generator) -> torch.Tensor:
    """Random numbers in [0, 1) for `samples` clips, (samples, DRAWS[mode])."""
    return torch.rand(samples, DRAWS[mode], generator=generator)


def augment(clips: Samples, mode: str, draws: torch.Tensor) -> Samples:
    """Augment clips; `draws` are their rows of `draw`."""
    return augmented(clips, mode, draws, shift)


def augmented(clips: Samples, mode: str, draws: torch.Tensor, move: Callable[[Clips, torch.Tensor], Clips]) -> Samples:
    """`augment` with a way to move clips in time."""
    assert isinstance(clips, Clips)
    if mode == "None":
        return clips
    draws = draws.to(clips.waves.device)
    if mode == "Standard":
        clips = mask_time(mask_band(clips, draws[:, 4:6]), draws[:, 2:4])
    moved = move(clips, draws[:, 0])
    return Clips(change_gain(moved.waves, draws[:, 1]), moved.lengths)


def shift(clips: Clips, draws: torch.Tensor) -> Clips:
    """Move each clip by up to SHIFT in time. What leaves is lost, though never all of a clip; its length moves along."""
    width = clips.waves.shape[1]
    most = round(width * SHIFT)
    offsets = ((draws * (2 * most + 1)).long() - most).clamp(min=1 - clips.lengths)
    sources = torch.arange(width, device=clips.waves.device) - offsets[:, None]
    inside = (sources >= 0) & (sources < width)
    waves = clips.waves.gather(1, sources.clamp(0, width - 1)) * inside
    return Clips(waves, (clips.lengths + offsets).clamp(1, width))


def change_gain(waves: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Louder or softer by up to GAIN, clipped as a microphone does."""
    return (waves * 10 ** ((2 * draws[:, None] - 1) * GAIN / 20)).clamp(-1, 1)


def mask_time(clips: Clips, draws: torch.Tensor) -> Clips:
    """Silence a stretch of up to TIME_MASK of each clip.

    This and `mask_band` are SpecAugment on the wave (D. S. Park et al., 2019, https://arxiv.org/abs/1904.08779).
    """
    widths = draws[:, :1] * TIME_MASK * clips.lengths[:, None]
    starts = draws[:, 1:] * (clips.lengths[:, None] - widths)
    places = torch.arange(clips.waves.shape[1], device=clips.waves.device)
    return Clips(clips.waves * ~((places >= starts) & (places < starts + widths)), clips.lengths)


def mask_band(clips: Clips, draws: torch.Tensor) -> Clips:
    """Silence a band of up to BAND_MASK of the mel scale, by its part of the wave's spectrum."""
    spectrum = torch.fft.rfft(clips.waves)
    # The scale of samples at 16 kHz; at another rate the widths differ a little, which is all the same to an augmentation.
    mels = torch.log1p(torch.linspace(0, 8000, spectrum.shape[1], device=spectrum.device) / 700)
    mels = mels / mels[-1]
    widths = draws[:, :1] * BAND_MASK
    starts = draws[:, 1:] * (1 - widths)
    waves = torch.fft.irfft(spectrum * ~((mels >= starts) & (mels < starts + widths)), clips.waves.shape[1])
    heard = torch.arange(waves.shape[1], device=waves.device) < clips.lengths[:, None]  # the filter rings on behind a clip's end
    return Clips(waves * heard, clips.lengths)
