"""Sound files as clips: one channel, 16,000 samples a second, 16 bit, all of one length.

Speech models take that rate, and what lies above 8 kHz tells words apart no better. 16 bit are half the memory of float32 and
more than a recording holds; models get float32. libsndfile (`soundfile`) decodes, a polyphase filter (`scipy`) changes the rate.
"""

import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from kompress_api.places import Dataset
from kompress_jobs.samples import Clips, Samples
from kompress_jobs.samples.encoded import THREADS, Encoded, File, Medium, opened
from kompress_jobs.samples.splits import Data, View

RATE = 16_000
"""Samples a second."""
FULL_SCALE = 32_768
LONGEST_SECONDS = 10.0
"""Clips are cut here where the manifest names no length."""
STEP_SECONDS = 0.5
"""... and the longest clip is rounded up to a multiple of this, so that a few clips of a set tell the same length as all do."""
IN_MEMORY_BYTES = 512 * 2**20
"""Decoded bytes of all splits up to which they are kept in memory (each process holds its own copy)."""
LENGTHS_READ = 4096
"""Clips whose header is read to find the longest."""
SOUND = Medium("clip", frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64"}))


def decoded(encoded: Encoded, dataset: Dataset) -> Data:
    """Files of sound as samples."""
    samples = clip_samples(dataset.clip_seconds, 0.0 if dataset.clip_seconds else longest(encoded.everything))
    keep = len(encoded) * samples * 2 <= IN_MEMORY_BYTES
    stored, unreadable = encoded.decoded(functools.partial(decode, samples=samples), functools.partial(gather, samples=samples), keep=keep)
    splits = {name: Heard(split) for name, split in stored.items()}
    return Data(
        encoded.classes,
        **splits,
        image_size=dataset.image_size or 0,
        sample_rate=RATE,
        clip_samples=samples,
        unreadable=unreadable,
    )


def longest(files: Sequence[File]) -> float:
    """Seconds of the longest clip; before a stage runs, only a few of a bucket's are known."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="headers") as pool:
        return max(pool.map(lambda file: seconds_of(opened(file)), files[:: max(1, len(files) // LENGTHS_READ)]), default=0.0)


def decode(file: Path | BinaryIO, samples: int) -> torch.Tensor | None:
    """At most `samples` samples from the start of a file, (found,), int16; channels are averaged. None when there is no sound in it.

    A header that promises more than there is (a stream that was cut off) is not believed: what is there is taken.
    """
    import numpy
    import soundfile

    try:
        with soundfile.SoundFile(file) as reading:
            wave = reading.read(math.ceil(samples * reading.samplerate / RATE), dtype="float32", always_2d=True).mean(1)
            wave = resample(wave, reading.samplerate)[:samples]
    except soundfile.SoundFileError:
        return None
    if not len(wave) or not numpy.isfinite(wave).all():
        return None
    return torch.from_numpy((wave * FULL_SCALE).round().clip(-FULL_SCALE, FULL_SCALE - 1).astype("int16"))


def resample(wave: Any, rate: int) -> Any:
    """A float32 array of `rate` samples a second at RATE."""
    if rate == RATE or not len(wave):
        return wave
    from scipy.signal import resample_poly

    shared = math.gcd(rate, RATE)
    return resample_poly(wave, RATE // shared, rate // shared)


def seconds_of(file: Path | BinaryIO) -> float:
    """Length by the header; 0 where there is none."""
    import soundfile

    try:
        return float(soundfile.info(file).duration)
    except soundfile.SoundFileError:
        return 0.0


def clip_samples(asked: float | None, longest: float) -> int:
    """Samples of every clip: `asked` seconds (dataset.clipSeconds), else those of the longest clip, rounded up, within LONGEST_SECONDS."""
    seconds = asked or min(max(math.ceil(longest / STEP_SECONDS), 1) * STEP_SECONDS, LONGEST_SECONDS)
    return max(1, round(seconds * RATE))


def gather(waves: Sequence[torch.Tensor], samples: int) -> Clips:
    """16-bit waves filled up with silence to `samples`."""
    found = torch.zeros(len(waves), samples, dtype=torch.int16)
    for row, wave in zip(found, waves, strict=True):
        row[: len(wave)] = wave
    return Clips(found, torch.tensor([len(wave) for wave in waves], dtype=torch.int64))


@dataclass
class Heard(View):
    """A split of 16-bit clips, given out as float32 in [-1, 1]."""

    def read(self, indices: torch.Tensor) -> tuple[Samples, torch.Tensor]:
        clips, found = self.stored.read(indices)
        assert isinstance(clips, Clips)
        return Clips(clips.waves.float() / FULL_SCALE, clips.lengths), found
