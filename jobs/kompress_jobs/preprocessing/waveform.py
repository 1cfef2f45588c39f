"""waveform: sound as it is, for transformers that learn their own features (wav2vec 2.0, HuBERT, WavLM).

A. Baevski et al., wav2vec 2.0, 2020, https://arxiv.org/abs/2006.11477: each utterance has mean 0 and variance 1. What is filled up
stays 0 and counts in neither, so a clip's input doesn't depend on what it is batched with.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch

from kompress_api.errors import MethodRefused
from kompress_jobs import preprocessing
from kompress_jobs.samples import Clips, Inputs, Samples, fitted_waves
from kompress_jobs.samples.splits import Data

EPSILON = 1e-7
"""Added to the variance, as in Hugging Face's feature extractor."""


class Preprocessing(preprocessing.Preprocessing):
    """What is done to a clip before the model sees it."""

    type: Literal["waveform"] = "waveform"
    """This module."""
    sample_rate: int
    """Samples a second of the clips."""
    length: int
    """Samples that a clip is cut or filled up to."""
    normalize: bool = True
    """Mean 0 and variance 1 for each clip."""
    attention_mask: bool = False
    """A second input, int64: 1 where there is sound, 0 where a clip was filled up."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("input_values", "attention_mask") if self.attention_mask else ("input_values",)

    def __call__(self, samples: Samples) -> Inputs:
        """Clips -> float32 (batch, length), and the mask."""
        assert isinstance(samples, Clips)
        waves = fitted_waves(samples.waves, self.length)
        lengths = samples.lengths.to(waves.device).clamp(1, self.length)[:, None]
        heard = torch.arange(self.length, device=waves.device) < lengths
        if self.normalize:
            mean = (waves * heard).sum(1, keepdim=True) / lengths
            centred = (waves - mean) * heard
            waves = centred / (centred.square().sum(1, keepdim=True) / lengths + EPSILON).sqrt()
        return (waves, heard.long()) if self.attention_mask else (waves,)

    def sample(self, batch: int = 2) -> Inputs:
        waves = torch.zeros(batch, self.length)
        return (waves, torch.ones(batch, self.length, dtype=torch.int64)) if self.attention_mask else (waves,)

    def fitted(self, data: Data) -> Self:
        """For clips of this data's length."""
        return self.model_copy(update={"sample_rate": data.sample_rate, "length": data.clip_samples})


def from_hub(preprocessor_config: Mapping[str, Any], data: Data, *, field: str = "spec.model.source") -> Preprocessing:
    """What `preprocessor_config.json` of a model on the hub asks for (Wav2Vec2FeatureExtractor's keys and defaults).

    Raises MethodRefused when the model was made for another sample rate.
    """
    require_rate(preprocessor_config, data, field=field)
    return Preprocessing(
        sample_rate=data.sample_rate,
        length=data.clip_samples,
        normalize=preprocessor_config.get("do_normalize", True),
        attention_mask=preprocessor_config.get("return_attention_mask", False),
    )


def require_rate(preprocessor_config: Mapping[str, Any], data: Data, *, field: str) -> None:
    """Raise MethodRefused unless the model hears the data at the rate it was made for."""
    rate = preprocessor_config.get("sampling_rate", 16_000)
    if rate != data.sample_rate:
        raise MethodRefused(
            f"the model was made for {rate} samples a second, the data has {data.sample_rate or 'no sound'}",
            hint=f"use a model for {data.sample_rate}" if data.sample_rate else "use sound, such as builtin://words",
            field=field,
        )
