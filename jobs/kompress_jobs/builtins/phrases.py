"""builtin://phrases: spoken phrases with their transcripts, made on this machine with Debian's espeak-ng (no download).

Two to four of the words of builtin://words, drawn anew for every clip, spoken by the voice variants of espeak-ng in British and American
English in turns: 99 voices that differ, 12 phrases each, 1,188 clips. The splits share no voice: 20 % of the voices are test, 10 % of
the rest validation. `arguments: {phrases: 8, voices: 20}` makes a smaller set. The clips are kept (`samples/espeak.py`).
"""

import hashlib

import torch
from pydantic import Field

from kompress_api.base import Model
from kompress_api.places import Dataset
from kompress_jobs.builtins.words import TEST_SHARE, WORDS, distinct, parted
from kompress_jobs.samples import Clips, espeak, sound, transcripts
from kompress_jobs.samples.espeak import ACCENTS, PITCH, SPEED, chosen_voices, version
from kompress_jobs.samples.splits import HELD_OUT, Data, MemorySplit, Split

FEWEST, MOST = 2, 4
"""Words of a phrase."""
SECONDS = 3.0
"""Of a clip: the slowest voice needs no more for four words."""
PROBE = "seven"
"""What every voice says once, to find those that sound alike."""


class Arguments(Model):
    """dataset.arguments."""

    words: int = Field(len(WORDS), ge=2, le=len(WORDS))
    """How many there are, the digits first."""
    phrases: int = Field(12, ge=1, le=1000)
    """Of each voice."""
    voices: int | None = Field(None, ge=3)
    """How many; absent: all that espeak-ng has."""


def made_of(dataset: Dataset) -> dict[str, str]:
    """The program, and how it is asked."""
    return {"espeak-ng": version(), "arguments": arguments_of(dataset).model_dump_json(), "speed": str(SPEED), "pitch": str(PITCH)}


def load(dataset: Dataset, first: int | None = None) -> Data:
    """The data set in memory; with `first` with few voices. Raises DataUnreadable without espeak-ng, InvalidManifest for its arguments."""
    asked = arguments_of(dataset)
    chosen = chosen_voices(asked.voices, first)
    texts = [phrase(voice, number, asked.words) for voice in chosen for number in range(asked.phrases)]
    samples = sound.clip_samples(dataset.clip_seconds or SECONDS, 0.0)
    clips = kept(texts, chosen, asked.phrases, samples)
    probes, clips = (Clips(*(part[rows] for part in clips)) for rows in (slice(len(chosen)), slice(len(chosen), None)))
    voice = torch.arange(len(chosen)).repeat_interleave(asked.phrases)
    rest, test = parted(distinct(probes, torch.arange(len(chosen))), chosen, TEST_SHARE)
    train, validation = parted(rest, chosen, HELD_OUT)
    rows = {
        name: torch.isin(voice, torch.tensor(members)).nonzero()[:, 0]
        for name, members in {"train": train, "validation": validation, "test": test}.items()
    }
    alphabet = transcripts.alphabet_of([" ".join(WORDS[: asked.words])])  # train has them all; the few voices of a rehearsal may not
    splits: dict[str, Split] = {}
    for name, own in rows.items():
        targets = transcripts.encode([texts[row] for row in own.tolist()], alphabet)
        called = [f"{chosen[row // asked.phrases]}: {texts[row]}" for row in own.tolist()]
        splits[name] = sound.Heard(MemorySplit(Clips(clips.waves[own], clips.lengths[own]), targets, called))
    return Data(alphabet, **splits, image_size=dataset.image_size or 0, sample_rate=sound.RATE, clip_samples=samples)


def phrase(voice: str, number: int, words: int) -> str:
    """What a voice says, drawn by the hash of its name."""
    drawn = hashlib.sha256(f"{voice} {number}".encode()).digest()
    count = FEWEST + drawn[0] % (MOST - FEWEST + 1)
    return " ".join(WORDS[int.from_bytes(drawn[4 * place : 4 * place + 4]) % words] for place in range(1, count + 1))


def kept(texts: list[str], chosen: list[str], phrases: int, samples: int) -> Clips:
    """The probe of every voice, then the phrases of all voices one after the other, out of the cache or spoken now."""
    lines = [(PROBE, f"{ACCENTS[0]}+{voice}") for voice in chosen]
    for row, text in enumerate(texts):
        lines.append((text, f"{ACCENTS[row % phrases % len(ACCENTS)]}+{chosen[row // phrases]}"))
    return espeak.kept("phrases", [version(), SPEED, PITCH, lines, samples], lambda: espeak.spoken(lines, samples))


def arguments_of(dataset: Dataset) -> Arguments:
    """Raises InvalidManifest with the argument at fault."""
    return espeak.arguments_of(Arguments, dataset, f"words (2 to {len(WORDS)}), phrases (of each voice) and voices (3 or more)")
