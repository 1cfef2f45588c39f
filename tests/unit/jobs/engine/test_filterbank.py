"""The Audio Spectrogram Transformer hears what it was trained on: Kaldi's features, number by number."""

import pytest
import torch

from kompress_jobs.preprocessing import filterbank, parse
from kompress_jobs.samples import Clips
from kompress_jobs.samples.splits import Data, MemorySplit

RATE = 16_000
SHORT = filterbank.Preprocessing(frames=64)


def clips() -> Clips:
    seconds = torch.arange(8000, dtype=torch.float64) / RATE
    wave = (0.5 * torch.sin(2 * torch.pi * (200 + 3000 * seconds) * seconds) + 0.01).float()
    return Clips(torch.stack([wave, wave * (torch.arange(8000) < 3000)]), torch.tensor([8000, 3000]))


def test_the_numbers_are_those_of_hugging_face() -> None:
    """ASTFeatureExtractor (transformers 5.23, without torchaudio) of the same two clips, `max_length` 64."""
    (found,) = SHORT(clips())
    assert found.shape == (2, 64, 128)
    golden = {
        (0, 0, 5): -0.5771,
        (0, 10, 30): -0.3709,
        (0, 30, 60): -0.5033,
        (0, 47, 100): -1.1241,
        (0, 48, 100): 0.467,
        (1, 0, 20): 0.3265,
        (1, 16, 40): -0.5304,
        (1, 17, 40): 0.467,
        (1, 63, 127): 0.467,
    }
    for place, value in golden.items():
        assert float(found[place]) == pytest.approx(value, abs=2e-3), place
    assert float(found.mean()) == pytest.approx(-0.25768, abs=1e-4)


def test_many_clips_are_prepared_in_pieces_with_the_same_result() -> None:
    many = Clips(clips().waves.repeat(20, 1), clips().lengths.repeat(20))
    assert torch.allclose(SHORT(many)[0][38:], SHORT(clips())[0], atol=1e-5)


@pytest.mark.parametrize("samples", [100, 399, 400, 20_000])
def test_any_length_gives_the_model_s_frames(samples: int) -> None:
    (found,) = SHORT(Clips(torch.rand(1, samples) - 0.5, torch.tensor([samples])))
    assert found.shape == SHORT.sample(1)[0].shape
    assert found.isfinite().all()


def test_the_hub_s_settings_are_taken_over() -> None:
    split = MemorySplit(clips(), torch.tensor([0, 1]))
    data = Data(["a", "b"], split, split, split, sample_rate=RATE, clip_samples=8000)
    config = {
        "max_length": 64,
        "num_mel_bins": 32,
        "mean": -6.0,
        "std": 3.0,
        "do_normalize": False,
        "feature_extractor_type": "ASTFeatureExtractor",
    }
    expected = filterbank.Preprocessing(frames=64, mels=32, mean=-6.0, std=3.0, normalize=False)
    assert filterbank.from_hub(config, data) == expected == expected.fitted(data)
    assert filterbank.from_hub({}, data) == filterbank.Preprocessing()
    assert parse(expected.dump()) == expected
