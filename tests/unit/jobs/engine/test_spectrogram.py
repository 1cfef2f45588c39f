"""Image models hear by what a spectrogram shows them: the right band at the right time, on the scale that they learn well on."""

import pytest
import torch

from kompress_jobs import mel
from kompress_jobs.preprocessing import parse, spectrogram
from kompress_jobs.samples import Clips
from kompress_jobs.samples.splits import Data, MemorySplit

RATE = 16_000
PLAIN = spectrogram.Preprocessing(sample_rate=RATE, length=RATE, channels=1)


def tone(hertz: float, start: int = 0, end: int = RATE) -> torch.Tensor:
    places = torch.arange(RATE)
    return 0.5 * torch.sin(2 * torch.pi * hertz * places / RATE) * ((places >= start) & (places < end))


def clips(*waves: torch.Tensor) -> Clips:
    return Clips(torch.stack(waves), torch.full((len(waves),), waves[0].shape[0]))


@pytest.mark.parametrize("hertz", [300, 1000, 4000])
def test_a_tone_lights_its_band_while_it_sounds(hertz: float) -> None:
    (image,) = PLAIN(clips(tone(hertz, 4000, 8000)))
    assert image.shape == (1, 1, 64, 100)
    assert image.dtype == torch.float32
    edges = torch.linspace(mel.to_mel(mel.LOWEST), mel.to_mel(RATE / 2), 66)
    expected = int((edges[1:-1] - mel.to_mel(hertz)).abs().argmin())
    assert abs(int(image[0, 0, :, 37].argmax()) - expected) <= 1
    loud = image[0, 0, expected] > image.max() - 5
    assert loud[27:48].all()
    assert not loud[:23].any()
    assert not loud[53:].any()


def test_every_band_hears_something() -> None:
    """A band narrower than a bin of the transform would be a row of the image that is always empty."""
    assert (mel.filters(64, 512, RATE, torch.device("cpu")).sum(1) > 0).all()


def test_sample_has_the_shape_of_what_comes() -> None:
    for changed in ({}, {"channels": 3}, {"image_size": 96, "channels": 3}, {"length": 8080}, {"length": 100}):
        made = PLAIN.model_copy(update=changed)
        assert made(clips(tone(500), tone(900)))[0].shape == made.sample(2)[0].shape, changed


def test_three_channels_are_one_thrice_and_a_stretched_image_shows_the_same() -> None:
    (wide,) = PLAIN.model_copy(update={"channels": 3, "image_size": 32})(clips(tone(1000)))
    assert torch.equal(wide[:, 0], wide[:, 2])
    (plain,) = PLAIN(clips(tone(1000)))
    assert abs(int(wide[0, 0, :, 16].argmax()) / 32 - int(plain[0, 0, :, 50].argmax()) / 64) < 0.05


def test_a_clip_does_not_depend_on_its_neighbours() -> None:
    alone, together = PLAIN(clips(tone(700)))[0], PLAIN(clips(tone(2000), tone(700)))[0]
    assert torch.allclose(alone[0], together[1], atol=1e-4)


def test_a_training_in_bf16_hears_the_same() -> None:
    """Eight bits of a logarithm would be heard as noise, in training and not in the exported model."""
    with torch.autocast("cpu", torch.bfloat16):
        (coarse,) = PLAIN(clips(tone(700)))
    assert torch.equal(coarse, PLAIN(clips(tone(700)))[0])


def test_the_training_clips_have_mean_0_and_deviation_1_afterwards() -> None:
    split = MemorySplit(clips(*(tone(200 * number) for number in range(1, 21))), torch.zeros(20, dtype=torch.int64))
    made = PLAIN.model_copy(update={"channels": 3}).measured(split)
    (images,) = made(split.samples)
    assert float(images.mean()) == pytest.approx(0, abs=1e-3)
    assert float(images.std()) == pytest.approx(1, abs=1e-2)
    assert made.channels == 3


def test_silence_alone_gives_numbers() -> None:
    split = MemorySplit(clips(torch.zeros(RATE), torch.zeros(RATE)), torch.zeros(2, dtype=torch.int64))
    (images,) = PLAIN.measured(split)(split.samples)
    assert images.isfinite().all()


def test_the_bundle_keeps_it_and_other_clips_change_its_length_only() -> None:
    assert parse(PLAIN.dump()) == PLAIN
    split = MemorySplit(clips(tone(1)), torch.zeros(1))
    longer = Data(["a", "b"], split, split, split, sample_rate=RATE, clip_samples=2 * RATE)
    assert PLAIN.fitted(longer) == PLAIN.model_copy(update={"length": 2 * RATE})
