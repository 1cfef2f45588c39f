"""builtin://words: twenty spoken words, made on this machine with Debian's espeak-ng (no download).

The words of Speech Commands (P. Warden, 2018, https://arxiv.org/abs/1804.03209), ten digits and ten commands, spoken by the 101 voice
variants of espeak-ng in British and American English: 99 that differ, 3,960 clips of one second. The splits share no voice: 20 % of
the voices are test, 10 % of the rest validation. `arguments: {words: 6, voices: 20}` makes a smaller set.

Speaking takes half a minute, so the clips are kept in `$XDG_CACHE_HOME/kompress/words` (default ~/.cache), one file for each version of
espeak-ng and each set of arguments; processes that want the same one wait for the first.
"""

import fcntl
import hashlib
import io
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from pydantic import Field, ValidationError

from kompress_api.base import Model
from kompress_api.canonical import digest
from kompress_api.errors import DataUnreadable, InvalidManifest
from kompress_api.places import Dataset
from kompress_jobs import sound
from kompress_jobs.data import HELD_OUT, Data, MemorySplit, Split, cut, rank_of
from kompress_jobs.samples import Clips

WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"),
)
ACCENTS = ("en", "en-us")
"""British and American. espeak-ng 1.51 does not apply a variant to `en-gb`: all voices would be one."""
SPEED, PITCH = 160, 50
"""Words a minute; 0 to 99."""
TEST_SHARE = 0.2
SECONDS = 1.0
VOICES_OF_A_REHEARSAL = 5
"""When the first samples are enough: few, and yet a voice for each split."""


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
    names = voices()
    few = VOICES_OF_A_REHEARSAL if first is not None else len(names)
    chosen = sorted(names, key=rank_of)[: min(asked.voices or len(names), few)]
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
    try:
        return Arguments.model_validate(dataset.arguments)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise InvalidManifest(
            f"{name}: {problem['msg']}",
            hint=f"words (2 to {len(WORDS)}) and voices (3 or more) can be set",
            field=f"spec.dataset.arguments.{name}",
        ) from error


def espeak(*arguments: str) -> bytes:
    """What espeak-ng writes; raises DataUnreadable where it is missing or refuses."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise DataUnreadable(
            "builtin://words is spoken by espeak-ng, which this machine lacks",
            hint="install it (Debian: `apt-get install espeak-ng`), in a cluster in the image of the pods",
            field="spec.dataset.source",
        )
    done = subprocess.run([program, *arguments], capture_output=True, check=False)
    if done.returncode:
        raise DataUnreadable(
            f"espeak-ng {' '.join(arguments)} failed: {done.stderr.decode(errors='replace').strip()}",
            hint="check its installation: the voices lie in the package espeak-ng-data",
            field="spec.dataset.source",
        )
    return done.stdout


def version() -> str:
    """Of the program; the voices come with it."""
    return espeak("--version").decode().partition("Data at")[0].strip()


def voices() -> list[str]:
    """Names of the voice variants."""
    listed = espeak("--voices=variant").decode()
    return [found.group(1) for line in listed.splitlines() if (found := re.search(r"!v/(\S+(?: \S+)*)", line))]


def kept(words: tuple[str, ...], chosen: list[str], samples: int) -> Clips:
    """The clips of all words, by word, voice and accent, out of the cache or spoken now."""
    from safetensors.torch import load_file, save_file

    asked = digest([version(), SPEED, PITCH, ACCENTS, words, chosen, samples]).removeprefix("sha256:")[:32]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kompress" / "words"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{asked}.safetensors"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            clips = spoken(words, chosen, samples)
            unfinished = file.with_suffix(".part")
            save_file(clips._asdict(), unfinished)
            unfinished.rename(file)
    return Clips(**load_file(file))


def spoken(words: tuple[str, ...], chosen: list[str], samples: int) -> Clips:
    """Let them be spoken, as many at once as there are cores."""
    lines = [(word, f"{accent}+{voice}") for word in words for voice in chosen for accent in ACCENTS]
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="espeak") as pool:
        return sound.gather(list(pool.map(lambda line: say(*line, samples), lines)), samples)


def say(word: str, voice: str, samples: int) -> torch.Tensor:
    """One clip. Raises DataUnreadable when nothing is heard."""
    wave = sound.decode(io.BytesIO(espeak("-v", voice, "-s", str(SPEED), "-p", str(PITCH), "--stdout", word)), samples)
    if wave is None:
        raise DataUnreadable(f"espeak-ng gave no sound for {word!r} in voice {voice}", hint="report it", field="spec.dataset.source")
    return wave
