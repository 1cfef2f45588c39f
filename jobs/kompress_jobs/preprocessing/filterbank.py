"""filterbank: Kaldi's log-mel features, which the Audio Spectrogram Transformer was trained on.

Y. Gong, Y. Chung, J. Glass, AST: Audio Spectrogram Transformer, 2021, https://arxiv.org/abs/2104.01778. Unlike `spectrogram` it
removes each frame's mean, raises high frequencies (0.97), begins frames at the clip's first sample, and has time first and no channel.
A test holds it to Hugging Face's ASTFeatureExtractor, number by number.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch

from kompress_jobs import mel, preprocessing
from kompress_jobs.preprocessing.waveform import require_rate
from kompress_jobs.samples import Clips, Inputs, Samples
from kompress_jobs.samples.splits import Data

N_FFT = 512
WINDOW = 400
HOP = 160
PREEMPHASIS = 0.97
FLOOR = 1.192092955078125e-07
CHUNK = 16
"""Clips whose frames are in memory at once: frames overlap, so they are larger than the clips."""


class Preprocessing(preprocessing.Preprocessing):
    """What is done to a clip before the model sees it."""

    type: Literal["filterbank"] = "filterbank"
    """This module."""
    sample_rate: int = 16_000
    """Samples a second of the clips."""
    mels: int = 128
    """Bands."""
    frames: int = 1024
    """Frames, 10 ms apart, that are cut or filled up to; the model's own number, whatever the clips' length."""
    normalize: bool = True
    """(x - mean) / (2 std)."""
    mean: float = -4.2677393
    """Of the logarithms; AudioSet's."""
    std: float = 4.5689974
    """Of the logarithms; AudioSet's."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("input_values",)

    def __call__(self, samples: Samples) -> Inputs:
        """Clips -> float32 (batch, frames, mels)."""
        assert isinstance(samples, Clips)
        parts = zip(samples.waves.split(CHUNK), samples.lengths.split(CHUNK), strict=True)
        with torch.autocast(samples.waves.device.type, enabled=False):  # what a bf16 training hears must be what others hear
            bands = torch.cat([self.bands(waves, lengths) for waves, lengths in parts])
        return ((bands - self.mean) / (2 * self.std) if self.normalize else bands,)

    def bands(self, waves: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logarithms (batch, frames, mels), 0 behind a clip's last whole frame."""
        waves = torch.nn.functional.pad(waves, (0, max(0, WINDOW - waves.shape[1])))
        frames = waves.unfold(1, WINDOW, HOP)[:, : self.frames]
        frames = frames - frames.mean(2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], 2)
        window = torch.hann_window(WINDOW, periodic=False, device=waves.device)
        power = torch.fft.rfft((frames - PREEMPHASIS * before) * window, N_FFT).abs().square()
        found = (power @ mel.filters(self.mels, N_FFT, self.sample_rate, waves.device).T).clamp(min=FLOOR).log()
        whole = 1 + (lengths.to(waves.device) - WINDOW).div(HOP, rounding_mode="floor")
        found = found * (torch.arange(found.shape[1], device=waves.device) < whole[:, None])[..., None]
        return torch.nn.functional.pad(found, (0, 0, 0, self.frames - found.shape[1]))

    def sample(self, batch: int = 2) -> Inputs:
        return (torch.zeros(batch, self.frames, self.mels),)

    def fitted(self, data: Data) -> Self:
        """The model's frames stay what they are."""
        return self


def from_hub(preprocessor_config: Mapping[str, Any], data: Data, *, field: str = "spec.model.source") -> Preprocessing:
    """What `preprocessor_config.json` of a model on the hub asks for (ASTFeatureExtractor's keys and defaults).

    Raises MethodRefused when the model was made for another sample rate.
    """
    require_rate(preprocessor_config, data, field=field)
    names = {"num_mel_bins": "mels", "max_length": "frames", "do_normalize": "normalize", "mean": "mean", "std": "std"}
    asked = {ours: preprocessor_config[theirs] for theirs, ours in names.items() if theirs in preprocessor_config}
    return Preprocessing(sample_rate=data.sample_rate, **asked)
