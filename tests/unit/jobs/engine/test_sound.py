"""Sound files become the same clips whatever their format, rate and channels; what holds no sound is told from what does."""

import io
import struct
from pathlib import Path

import numpy
import pytest
import soundfile
import torch

from kompress_jobs.samples import sound
from kompress_jobs.samples.splits import MemorySplit

SECOND = sound.RATE


def sine(hertz: float, rate: int, seconds: float = 1.0) -> numpy.ndarray:
    return 0.5 * numpy.sin(2 * numpy.pi * hertz * numpy.arange(round(rate * seconds)) / rate)


def write(path: Path, wave: numpy.ndarray, rate: int, **fields: str) -> Path:
    soundfile.write(path, wave, rate, **fields)
    return path


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_another_sample_rate_gives_the_same_tone(rate: int, tmp_path: Path) -> None:
    """Without it every voice of a 44.1 kHz recording would be heard at the wrong pitch."""
    found = sound.decode(write(tmp_path / "tone.wav", sine(1000, rate), rate), SECOND)
    assert found is not None
    assert len(found) == SECOND
    middle = found.numpy()[1000:-1000] / sound.FULL_SCALE
    assert abs(middle - sine(1000, SECOND)[1000:-1000]).max() < 2e-3


def test_what_the_lower_rate_can_not_hold_is_filtered_out_not_folded_down(tmp_path: Path) -> None:
    """A whistle at 11 kHz must not turn up as a tone at 5 kHz."""
    found = sound.decode(write(tmp_path / "whistle.wav", sine(11_000, 44_100), 44_100), SECOND)
    assert found is not None
    assert abs(found[1000:-1000]).max() / sound.FULL_SCALE < 0.5 * 10 ** (-50 / 20)


def test_stereo_is_mixed_and_not_only_its_left_side(tmp_path: Path) -> None:
    sides = numpy.stack([sine(500, SECOND), numpy.zeros(SECOND)], axis=1)
    found = sound.decode(write(tmp_path / "stereo.wav", sides, SECOND), SECOND)
    assert found is not None
    assert abs(found.numpy() / sound.FULL_SCALE - sine(500, SECOND) / 2).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "fields"), [("a.flac", {}), ("a.ogg", {}), ("a.wav", {"subtype": "FLOAT"}), ("a.aiff", {}), ("a.mp3", {})]
)
def test_formats(name: str, fields: dict[str, str], tmp_path: Path) -> None:
    found = sound.decode(write(tmp_path / name, sine(440, SECOND), SECOND, **fields), SECOND)
    assert found is not None
    loudest = numpy.abs(numpy.fft.rfft(found.numpy())).argmax() * SECOND / len(found)
    assert abs(loudest - 440) <= 2


def test_a_long_recording_is_read_as_far_as_it_is_used(tmp_path: Path) -> None:
    found = sound.decode(write(tmp_path / "long.wav", sine(440, 44_100, 3), 44_100), SECOND // 2)
    assert found is not None
    assert len(found) == SECOND // 2


def streamed(frames: int) -> bytes:
    """As espeak-ng and ffmpeg write into a pipe: the header was written before the length was known."""
    pcm = (sine(300, SECOND)[:frames] * 32767).astype("<i2").tobytes()
    return (
        struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 0x7FFFF024, b"WAVE", b"fmt ", 16, 1, 1, SECOND, 2 * SECOND, 2, 16, b"data", 0x7FFFF000)
        + pcm
    )


def test_a_header_that_promises_more_than_there_is_is_not_believed(tmp_path: Path) -> None:
    found = sound.decode(io.BytesIO(streamed(700)), SECOND)
    assert found is not None
    assert len(found) == 700
    whole = write(tmp_path / "whole.wav", sine(300, SECOND), SECOND).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    found = sound.decode(tmp_path / "cut.wav", SECOND)
    assert found is not None
    assert abs(len(found) - SECOND // 2) < 100
    assert sound.seconds_of(tmp_path / "cut.wav") == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("content", [b"", b"no sound at all", streamed(0), b"RIFF"])
def test_what_holds_no_sound_is_unreadable(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(content)
    assert sound.decode(tmp_path / "bad.wav", SECOND) is None
    assert sound.seconds_of(tmp_path / "bad.wav") == 0


def test_numbers_that_are_none_are_unreadable(tmp_path: Path) -> None:
    """One NaN in a float file would make the loss NaN hours later."""
    wave = sine(440, SECOND)
    wave[77] = numpy.nan
    assert sound.decode(write(tmp_path / "nan.wav", wave, SECOND, subtype="FLOAT"), SECOND) is None


@pytest.mark.parametrize(
    ("asked", "longest", "seconds"),
    [(None, 0.73, 1.0), (None, 1.0, 1.0), (None, 1.01, 1.5), (None, 3600, 10), (None, 0, 0.5), (0.8, 3, 0.8)],
)
def test_the_common_length(asked: float | None, longest: float, seconds: float) -> None:
    assert sound.clip_samples(asked, longest) == round(seconds * SECOND)


def test_sixteen_bit_clips_come_out_as_float_with_silence_behind() -> None:
    clips = sound.gather([torch.tensor([-32768, 16384], dtype=torch.int16), torch.tensor([8192], dtype=torch.int16)], 3)
    split = sound.Heard(MemorySplit(clips, torch.tensor([0, 1])))
    found, positions = split.read(torch.tensor([1, 0]))
    assert found.waves.tolist() == [[0.25, 0, 0], [-1, 0.5, 0]]  # type: ignore[union-attr]
    assert found.lengths.tolist() == [1, 2]  # type: ignore[union-attr]
    assert positions.tolist() == [0, 1]
    assert len(split) == 2
