"""spectrogram: sound as an image for image models, log-mel over time.

log(mel + 1e-6) of the power spectrum (Hann window), (x - mean) / std; low bands are the first rows. It is no part of an exported
graph: who calls the graph elsewhere does this before, with the numbers of the bundle.
"""

from typing import Literal, Self

import torch

from kompress_jobs import mel, preprocessing
from kompress_jobs.samples import Clips, Inputs, Samples, fitted_waves
from kompress_jobs.samples.splits import Data, Split

FLOOR = 1e-6
CLIPS_MEASURED = 256
"""Training clips that mean and deviation are taken from."""


class Preprocessing(preprocessing.Preprocessing):
    """What is done to a clip before the model sees it."""

    type: Literal["spectrogram"] = "spectrogram"
    """This module."""
    sample_rate: int
    """Samples a second of the clips."""
    length: int
    """Samples that a clip is cut or filled up to."""
    n_fft: int = 512
    """Points of the Fourier transform."""
    window: int = 400
    """Samples of a frame, 25 ms at 16 kHz."""
    hop: int = 160
    """Samples from frame to frame, 10 ms at 16 kHz."""
    mels: int = 64
    """Bands, the image's height; its width is length / hop."""
    channels: int
    """1, or 3 that are the same."""
    image_size: int | None = None
    """Side that the spectrogram is stretched to (bilinear), for models that take one size only."""
    mean: float = 0.0
    """Of the logarithms."""
    std: float = 1.0
    """Of the logarithms."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("input",)

    @property
    def frames(self) -> int:
        """Columns before stretching."""
        return max(1, self.length // self.hop)

    def __call__(self, samples: Samples) -> Inputs:
        """Clips -> float32 (batch, channels, mels, frames), or both sides image_size."""
        assert isinstance(samples, Clips)
        images = ((self.bands(fitted_waves(samples.waves, self.length)) - self.mean) / self.std)[:, None]
        if self.image_size is not None:
            images = torch.nn.functional.interpolate(images, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        return (images.expand(-1, self.channels, -1, -1).contiguous(),)

    def bands(self, waves: torch.Tensor) -> torch.Tensor:
        """Logarithms (batch, mels, frames)."""
        window = torch.hann_window(self.window, device=waves.device)
        with torch.autocast(waves.device.type, enabled=False):  # what a bf16 training hears must be what the exported model hears
            short = torch.stft(waves, self.n_fft, self.hop, self.window, window, pad_mode="constant", return_complex=True)
            power = short[..., : self.frames].abs().square()
            return (mel.filters(self.mels, self.n_fft, self.sample_rate, waves.device) @ power + FLOOR).log()

    def sample(self, batch: int = 2) -> Inputs:
        height, width = (self.image_size, self.image_size) if self.image_size else (self.mels, self.frames)
        return (torch.zeros(batch, self.channels, height, width),)

    def fitted(self, data: Data) -> Self:
        """For clips of this data's length."""
        return self.model_copy(update={"sample_rate": data.sample_rate, "length": data.clip_samples})

    def measured(self, split: Split) -> Self:
        """With mean and deviation of some clips of a split."""
        chosen = torch.arange(len(split))[:: max(1, len(split) // CLIPS_MEASURED)]
        clips, _ = split.read(chosen)
        plain = self.model_copy(update={"channels": 1, "image_size": None, "mean": 0.0, "std": 1.0})
        (found,) = plain(clips)
        return self.model_copy(update={"mean": round(float(found.mean()), 4), "std": max(round(float(found.std()), 4), 1e-3)})


def for_data(data: Data, channels: int) -> Preprocessing:
    """The default spectrogram of a data set's clips; mean and deviation are still to be `measured`."""
    size = data.image_size or None
    return Preprocessing(sample_rate=data.sample_rate, length=data.clip_samples, channels=channels, image_size=size)
