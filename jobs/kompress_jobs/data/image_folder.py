"""imagefolder: <split>/<label>/<file> below a folder or an S3 prefix (`samples/folders.py`).

A set that is small decoded lies in memory; a larger one is decoded batch by batch.
"""

from pathlib import Path

from kompress_api.places import Dataset
from kompress_jobs.samples import folders
from kompress_jobs.samples.images import IMAGES, decoded
from kompress_jobs.samples.splits import Data


def load(dataset: Dataset, scratch: Path, *, field: str, first: int | None = None) -> Data:
    """Read the folder, or about the `first` samples of each split. Raises DataUnreadable with the file or folder at fault."""
    return decoded(folders.open_folder(dataset, scratch, IMAGES, field=field, first=first), dataset)
