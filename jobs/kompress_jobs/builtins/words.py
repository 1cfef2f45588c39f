"""builtin://words: twenty spoken words, made on this machine with Debian's espeak-ng (no download).

The words of Speech Commands (P. Warden, 2018, https://arxiv.org/abs/1804.03209), ten digits and ten commands, spoken by the 101 voice
variants of espeak-ng in British and American English: 99 that differ, 3,960 clips of one second. The splits share no voice: 20 % of
the voices are test, 10 % of the rest validation. `arguments: {words: 6, voices: 20}` makes a smaller set. The clips are kept
(`samples/espeak.py`).
"""

import hashlib

import torch
from pydantic import Field

from kompress_api.base import Model
from kompress_api.places import Dataset
from kompress_jobs.samples import Clips, espeak, sound
from kompress_jobs.samples.espeak import ACCENTS, PITCH, SPEED, chosen_voices, version
from kompress_jobs.samples.splits import HELD_OUT, Data, MemorySplit, Split, cut

WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"),
)
TEST_SHARE = 0.2
SECONDS = 1.0


class Arguments(Model):
    """dataset.arguments."""

    words: int = Field(len(WORDS), ge=2, le=len(WORDS))
    """How many, the digits first."""
    voices: int | None = Field(None, ge=3)
    """How many; absent: all that espeak-ng has."""


def made_of(dataset: Dataset) -> dict[str, str]:
    """The program, and how it is asked."""
    return {"espeak-ng": version(), "arguments": arguments_of(dataset).model_dump_json(), "speed": str(SPEED), "pitch": str(PITCH)}


def load(dataset: Dataset, first: int | None = None) -> Data:
    """The data set in memory; with `first` with few voices. Raises DataUnreadable without espeak-ng, InvalidManifest for its arguments."""
    asked = arguments_of(dataset)
    chosen = chosen_voices(asked.voices, first)
    words = WORDS[: asked.words]
    samples = sound.clip_samples(dataset.clip_seconds or SECONDS, 0.0)
    clips = kept(words, chosen, samples)
    label = torch.arange(len(words)).repeat_interleave(len(chosen) * len(ACCENTS))
    voice = torch.arange(len(chosen)).repeat_interleave(len(ACCENTS)).repeat(len(words))
    known = distinct(clips, voice)
    rest, test = parted(known, chosen, TEST_SHARE)
    train, validation = parted(rest, chosen, HELD_OUT)
    parts = {"train": train, "validation": validation, "test": test}
    splits: dict[str, Split] = {}
    for name, members in parts.items():
        rows = torch.isin(voice, torch.tensor(members)).nonzero()[:, 0]
        splits[name] = sound.Heard(MemorySplit(Clips(clips.waves[rows], clips.lengths[rows]), label[rows]))
    return Data(list(words), **splits, image_size=dataset.image_size or 0, sample_rate=sound.RATE, clip_samples=samples)


def distinct(clips: Clips, voice: torch.Tensor) -> list[int]:
    """The voices, without those that sound as another one does (caleb, klatt and klatt6): a test on them would be none."""
    found: dict[bytes, int] = {}
    for index in range(int(voice.max()) + 1):
        found.setdefault(hashlib.sha256(clips.waves[voice == index].numpy().tobytes()).digest(), index)
    return list(found.values())


def parted(members: list[int], chosen: list[str], share: float) -> tuple[list[int], list[int]]:
    """Voices (kept, cut) by the hash of their names."""
    kept, away = cut([chosen[index] for index in members], [0] * len(members), share)
    return [members[index] for index in kept], [members[index] for index in away]


def arguments_of(dataset: Dataset) -> Arguments:
    """Raises InvalidManifest with the argument at fault."""
    return espeak.arguments_of(Arguments, dataset, f"words (2 to {len(WORDS)}) and voices (3 or more)")


def kept(words: tuple[str, ...], chosen: list[str], samples: int) -> Clips:
    """The clips of all words, by word, voice and accent, out of the cache or spoken now."""
    asked = [version(), SPEED, PITCH, ACCENTS, words, chosen, samples]
    return espeak.kept("words", asked, lambda: spoken(words, chosen, samples))


def spoken(words: tuple[str, ...], chosen: list[str], samples: int) -> Clips:
    """Let them be spoken."""
    lines = [(word, f"{accent}+{voice}") for word in words for voice in chosen for accent in ACCENTS]
    return espeak.spoken(lines, samples)
