"""Transformers hear waves as they were trained to, and a clip is the same whatever it is batched with."""

import pytest
import torch

from kompress_api.errors import MethodRefused
from kompress_jobs.preprocessing import parse, waveform
from kompress_jobs.samples import Clips
from kompress_jobs.samples.splits import Data, MemorySplit

RATE = 16_000
MASKED = waveform.Preprocessing(sample_rate=RATE, length=8000, attention_mask=True)


def chirp(samples: int) -> torch.Tensor:
    seconds = torch.arange(samples, dtype=torch.float64) / RATE
    return (0.5 * torch.sin(2 * torch.pi * (200 + 3000 * seconds) * seconds) + 0.01).float()


def clips() -> Clips:
    waves = torch.zeros(2, 8000)
    waves[0], waves[1, :3000] = chirp(8000), chirp(3000)
    return Clips(waves, torch.tensor([8000, 3000]))


def sound(rate: int = RATE, samples: int = 8000) -> Data:
    split = MemorySplit(clips(), torch.tensor([0, 1]))
    return Data(["a", "b"], split, split, split, sample_rate=rate, clip_samples=samples)


def test_the_numbers_are_those_of_hugging_face() -> None:
    """Wav2Vec2FeatureExtractor (transformers 5.23) of the same two clips, padded, with an attention mask."""
    waves, mask = MASKED(clips())
    golden = {
        (0, 0): -0.00212,
        (0, 100): 1.04575,
        (0, 7999): -1.3471,
        (1, 0): -0.00517,
        (1, 100): 1.04267,
        (1, 2999): -0.93404,
        (1, 3000): 0.0,
    }
    for place, value in golden.items():
        assert float(waves[place]) == pytest.approx(value, abs=1e-4), place
    assert mask.dtype == torch.int64
    assert mask.sum(1).tolist() == [8000, 3000]
    assert MASKED.names == ("input_values", "attention_mask")


def test_a_clip_does_not_depend_on_what_it_is_filled_up_to() -> None:
    (long,) = MASKED.model_copy(update={"attention_mask": False, "length": 12_000})(clips())
    waves, _ = MASKED(clips())
    assert torch.allclose(long[:, :8000], waves, atol=1e-6)
    assert not long[:, 8000:].any()
    assert float(waves[1, :3000].var(correction=0)) == pytest.approx(1, abs=1e-3)


def test_silence_and_plain_waves() -> None:
    assert MASKED(Clips(torch.zeros(1, 8000), torch.tensor([8000])))[0].isfinite().all()
    plain = MASKED.model_copy(update={"normalize": False})
    assert torch.equal(plain(clips())[0], clips().waves)


def test_sample_has_the_shape_of_what_comes() -> None:
    for made in (MASKED, MASKED.model_copy(update={"attention_mask": False})):
        assert [(part.shape, part.dtype) for part in made.sample(2)] == [(part.shape, part.dtype) for part in made(clips())]
        assert len(made.names) == len(made.axes) == len(made.sample(1))


def test_the_hub_s_settings_are_taken_over_and_another_rate_is_refused() -> None:
    config = {
        "do_normalize": False,
        "return_attention_mask": True,
        "sampling_rate": RATE,
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    }
    assert waveform.from_hub(config, sound()) == MASKED.model_copy(update={"normalize": False})
    assert waveform.from_hub({}, sound()) == MASKED.model_copy(update={"attention_mask": False})
    for data, words in ((sound(), "8000 samples"), (sound(0, 0), "no sound")):
        with pytest.raises(MethodRefused, match=words) as caught:
            waveform.from_hub({"sampling_rate": 8000}, data, field="spec.model.source")
        assert caught.value.field == "spec.model.source"


def test_the_bundle_keeps_it_and_other_clips_change_its_length_only() -> None:
    assert parse(MASKED.dump()) == MASKED
    assert MASKED.fitted(sound(samples=9000)) == MASKED.model_copy(update={"length": 9000})
