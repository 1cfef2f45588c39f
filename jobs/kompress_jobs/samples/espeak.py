"""Sound that Debian's espeak-ng speaks on this machine (no download), and its voices, for the data sets of `builtins/`.

Speaking takes half a minute, so the clips of a set are kept in `$XDG_CACHE_HOME/kompress/<set>` (default ~/.cache), one file for each
version of espeak-ng and each set of arguments; processes that want the same one wait for the first.
"""

import fcntl
import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError

from kompress_api.base import Model
from kompress_api.canonical import digest
from kompress_api.errors import DataUnreadable, InvalidManifest
from kompress_api.places import Dataset
from kompress_jobs.samples import Clips, sound
from kompress_jobs.samples.splits import rank_of

ACCENTS = ("en", "en-us")
"""British and American. espeak-ng 1.51 does not apply a variant to `en-gb`: all voices would be one."""
SPEED, PITCH = 160, 50
"""Words a minute; 0 to 99."""
VOICES_OF_A_REHEARSAL = 5
"""When the first samples are enough: few, and yet a voice for each split."""

Arguments = TypeVar("Arguments", bound=Model)


def espeak(*arguments: str) -> bytes:
    """What espeak-ng writes; raises DataUnreadable where it is missing or refuses."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise DataUnreadable(
            "this data set is spoken by espeak-ng, which this machine lacks",
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


def chosen_voices(wanted: int | None, first: int | None) -> list[str]:
    """So many of them (None: all), in the order of their names' hashes; with `first` a few."""
    names = voices()
    few = VOICES_OF_A_REHEARSAL if first is not None else len(names)
    return sorted(names, key=rank_of)[: min(wanted or len(names), few)]


def arguments_of(kind: type[Arguments], dataset: Dataset, known: str) -> Arguments:
    """dataset.arguments; raises InvalidManifest with the argument at fault, and what is `known`."""
    try:
        return kind.model_validate(dataset.arguments)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise InvalidManifest(f"{name}: {problem['msg']}", hint=f"{known} can be set", field=f"spec.dataset.arguments.{name}") from error


def kept(name: str, asked: Sequence[Any], make: Callable[[], Clips]) -> Clips:
    """The clips of a set, out of the cache or made now; `asked` is all that they depend on, JSON."""
    from safetensors.torch import load_file, save_file

    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kompress" / name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{digest(list(asked)).removeprefix('sha256:')[:32]}.safetensors"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            clips = make()
            unfinished = file.with_suffix(".part")
            save_file(clips._asdict(), unfinished)
            unfinished.rename(file)
    return Clips(**load_file(file))


def spoken(lines: Sequence[tuple[str, str]], samples: int) -> Clips:
    """Let (text, voice) be spoken, as many at once as there are cores."""
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="espeak") as pool:
        return sound.gather(list(pool.map(lambda line: say(*line, samples), lines)), samples)


def say(text: str, voice: str, samples: int) -> torch.Tensor:
    """One clip. Raises DataUnreadable when nothing is heard."""
    wave = sound.decode(io.BytesIO(espeak("-v", voice, "-s", str(SPEED), "-p", str(PITCH), "--stdout", text)), samples)
    if wave is None:
        raise DataUnreadable(f"espeak-ng gave no sound for {text!r} in voice {voice}", hint="report it", field="spec.dataset.source")
    return wave
