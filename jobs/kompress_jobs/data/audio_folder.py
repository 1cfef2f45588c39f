"""audiofolder: <split>/<label>/<file> below a folder or an S3 prefix (`folders.py`), wav, flac, ogg and what else libsndfile reads.

Every clip is cut or filled up to one length: `dataset.clipSeconds`, else that of the longest. A set that is small decoded lies
in memory; a larger one is decoded batch by batch.
"""

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kompress_api.places import Dataset
from kompress_jobs import folders, sound
from kompress_jobs.data import Data

IN_MEMORY_BYTES = 512 * 2**20
"""Decoded bytes of all splits up to which they are kept in memory (each process holds its own copy)."""
LENGTHS_READ = 4096
"""Clips whose header is read to find the longest."""
SOUND = folders.Medium("clip", frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64"}))


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None) -> Data:
    """Read the folder, or about the `first` samples of each split. Raises DataUnreadable with the file or folder at fault."""
    folder = folders.open_folder(dataset, scratch, SOUND, field=field, first=first)
    samples = sound.clip_samples(dataset.clip_seconds, 0.0 if dataset.clip_seconds else longest(folder.everything))
    keep = len(folder.files) * samples * 2 <= IN_MEMORY_BYTES
    stored, unreadable = folder.splits(
        functools.partial(sound.decode, samples=samples), functools.partial(sound.gather, samples=samples), keep=keep
    )
    splits = {name: sound.Heard(split) for name, split in stored.items()}
    return Data(
        folder.classes,
        **splits,
        image_size=dataset.image_size or 0,
        sample_rate=sound.RATE,
        clip_samples=samples,
        unreadable=unreadable,
    )


def longest(files: list[Path]) -> float:
    """Seconds of the longest clip of those that are here; before a stage runs, only a few of a bucket's are."""
    here = [path for path in files if path.exists()]
    with ThreadPoolExecutor(folders.THREADS, thread_name_prefix="headers") as pool:
        return max(pool.map(sound.seconds_of, here[:: max(1, len(here) // LENGTHS_READ)]), default=0.0)
