"""audiofolder: <split>/<label>/<file> below a folder or an S3 prefix (`samples/folders.py`), wav, flac, ogg and what else libsndfile reads.

Every clip is cut or filled up to one length: `dataset.clipSeconds`, else that of the longest. A set that is small decoded lies
in memory; a larger one is decoded batch by batch.
"""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kompress_api.places import Dataset
from kompress_jobs.data import Data
from kompress_jobs.samples import folders, sound
from kompress_jobs.samples.encoded import THREADS, Encoded, File, Medium, opened

IN_MEMORY_BYTES = 512 * 2**20
"""Decoded bytes of all splits up to which they are kept in memory (each process holds its own copy)."""
LENGTHS_READ = 4096
"""Clips whose header is read to find the longest."""
SOUND = Medium("clip", frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64"}))


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None) -> Data:
    """Read the folder, or about the `first` samples of each split. Raises DataUnreadable with the file or folder at fault."""
    return decoded(folders.open_folder(dataset, scratch, SOUND, field=field, first=first), dataset)


def decoded(encoded: Encoded, dataset: Dataset) -> Data:
    """Files of sound as samples."""
    samples = sound.clip_samples(dataset.clip_seconds, 0.0 if dataset.clip_seconds else longest(encoded.everything))
    keep = len(encoded) * samples * 2 <= IN_MEMORY_BYTES
    stored, unreadable = encoded.decoded(
        functools.partial(sound.decode, samples=samples), functools.partial(sound.gather, samples=samples), keep=keep
    )
    splits = {name: sound.Heard(split) for name, split in stored.items()}
    return Data(
        encoded.classes,
        **splits,
        image_size=dataset.image_size or 0,
        sample_rate=sound.RATE,
        clip_samples=samples,
        unreadable=unreadable,
    )


def longest(files: Sequence[File]) -> float:
    """Seconds of the longest clip; before a stage runs, only a few of a bucket's are known."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="headers") as pool:
        return max(pool.map(lambda file: sound.seconds_of(opened(file)), files[:: max(1, len(files) // LENGTHS_READ)]), default=0.0)
