"""audio-classification: which input a model gets, and augmentation that is the same on any number of processes."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.models import Pretrained
from kompress_jobs.preprocessing import spectrogram, waveform
from kompress_jobs.samples import Clips
from kompress_jobs.samples.splits import Data, MemorySplit
from kompress_jobs.tasks import audio_classification as task

RATE = 16_000


@pytest.fixture
def sound() -> Data:
    waves = torch.rand(6, RATE // 2, generator=torch.Generator().manual_seed(0)) - 0.5
    split = MemorySplit(Clips(waves, torch.full((6,), RATE // 2)), torch.arange(6) % 2)
    return Data(["a", "b"], split, split, split, sample_rate=RATE, clip_samples=RATE // 2)


class Waves(nn.Module):
    """Takes (batch, samples), as a user's own 1-D network does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(1, 2, 400, stride=160)

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        return self.layer(waves[:, None]).mean(2) if waves.ndim == 2 else self.refuse(waves)

    def refuse(self, waves: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"no images, please: {waves.ndim}")


def images(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_model_sees_spectrograms_of_its_channels(channels: int, sound: Data) -> None:
    found = task.preprocessing_for(images(channels), sound, Pretrained(), field="spec.model")
    assert isinstance(found, spectrogram.Preprocessing)
    assert found.channels == channels
    assert float(found(sound.train.read(torch.arange(6))[0])[0].mean()) == pytest.approx(0, abs=0.01)


def test_a_model_of_waves_gets_waves(sound: Data) -> None:
    found = task.preprocessing_for(Waves(), sound, Pretrained(), field="spec.model")
    assert found == waveform.Preprocessing(sample_rate=RATE, length=RATE // 2)


def test_a_model_that_takes_one_size_only_is_told_the_way_out(sound: Data) -> None:
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    with pytest.raises(MethodRefused, match="3x64x50") as caught:
        task.preprocessing_for(fixed, sound, Pretrained(), field="spec.model")
    assert "imageSize" in caught.value.hint
    stretched = dataclasses.replace(sound, image_size=32)
    assert task.preprocessing_for(fixed, stretched, Pretrained(), field="spec.model").sample(1)[0].shape == (1, 3, 32, 32)


def test_a_bundle_fits_clips_of_another_length_if_its_model_does(sound: Data) -> None:
    model = images(1)
    made = task.preprocessing_for(model, sound, Pretrained(), field="spec.model")
    assert task.refitted(made, model, sound, field="spec.model") is made
    longer = dataclasses.replace(sound, clip_samples=RATE)
    assert task.refitted(made, model, longer, field="spec.model").sample(1)[0].shape == (1, 1, 64, 100)
    with pytest.raises(MethodRefused, match="1x64x100"):
        task.refitted(made, nn.Sequential(nn.Flatten(), nn.Linear(64 * 50, 2)), longer, field="spec.model")


def test_images_are_no_sound(tmp_path: Path) -> None:
    digits = data.load(Dataset(source="builtin://digits"), tmp_path)
    with pytest.raises(MethodRefused, match="no sound") as caught:
        task.preprocessing_for(images(1), digits, Pretrained(), field="spec.model")
    assert caught.value.field == "spec.dataset.source"


def speech(count: int = 8) -> Clips:
    """Noise of unlike lengths."""
    lengths = torch.linspace(RATE // 4, RATE // 2, count).long()
    waves = torch.rand(count, RATE // 2, generator=torch.Generator().manual_seed(1)) - 0.5
    return Clips(waves * (torch.arange(RATE // 2) < lengths[:, None]), lengths)


@pytest.mark.parametrize("mode", ["None", "Light", "Standard"])
def test_an_augmented_clip_depends_on_its_own_numbers_alone(mode: str) -> None:
    clips, draws = speech(), task.draw(mode, 8, torch.Generator().manual_seed(2))
    whole = task.augment(clips, mode, draws)
    halves = [task.augment(Clips(clips.waves[part], clips.lengths[part]), mode, draws[part]) for part in (slice(0, 3), slice(3, 8))]
    assert isinstance(whole, Clips)
    assert torch.allclose(whole.waves, torch.cat([half.waves for half in halves]), atol=1e-6)  # type: ignore[union-attr]
    assert torch.equal(whole.lengths, torch.cat([half.lengths for half in halves]))  # type: ignore[union-attr]
    assert mode == "None" or not torch.equal(whole.waves, clips.waves)


@pytest.mark.parametrize("mode", ["Light", "Standard"])
def test_an_augmented_clip_is_still_a_clip(mode: str) -> None:
    """Within [-1, 1], silent behind its end, and never empty: the waveform's normalisation rests on all three."""
    clips = Clips(speech(200).waves * 2, speech(200).lengths)
    found = task.augment(clips, mode, task.draw(mode, 200, torch.Generator().manual_seed(3)))
    assert isinstance(found, Clips)
    assert found.waves.abs().max() <= 1
    assert not (found.waves * (torch.arange(RATE // 2) >= found.lengths[:, None])).any()
    assert found.lengths.min() >= 1
    assert found.lengths.max() <= RATE // 2


def test_the_shift_moves_sound_and_silence_comes_in() -> None:
    clips = speech(3)
    most = round(RATE // 2 * task.SHIFT)
    found = task.shift(clips, torch.tensor([0.0, 0.5, 0.9999]))
    assert torch.equal(found.waves[0, :-most], clips.waves[0, most:])
    assert torch.equal(found.waves[1], clips.waves[1])
    assert torch.equal(found.waves[2, most:], clips.waves[2, :-most])
    assert not found.waves[2, :most].any()
    assert (found.lengths - clips.lengths).tolist() == [-most, 0, 0], "the last one fills its row: what leaves is lost"


def test_gain_is_in_decibels() -> None:
    found = task.change_gain(torch.full((3, 4), 0.1), torch.tensor([0.0, 0.5, 1.0]))
    assert found[:, 0].tolist() == pytest.approx([0.1 / 1.995, 0.1, 0.1 * 1.995], rel=1e-3)


def test_a_band_and_a_stretch_are_silenced_and_the_rest_is_left() -> None:
    places = torch.arange(RATE)
    low, high = (torch.sin(2 * torch.pi * hertz * places / RATE) for hertz in (300, 3000))
    clip = Clips((0.3 * low + 0.3 * high)[None], torch.tensor([RATE]))
    # From 0.5625 to 0.8125 of the mel scale: 1,940 to 4,300 Hz.
    found = task.mask_band(clip, torch.tensor([[1.0, 0.75]])).waves[0]
    assert torch.allclose(found[1000:-1000], 0.3 * low[1000:-1000], atol=0.01)
    quiet = task.mask_time(clip, torch.tensor([[1.0, 0.5]])).waves[0] == 0
    assert quiet[6401:9599].all()
    assert not quiet[:6000].all()
    assert int(quiet.sum()) < 3300
