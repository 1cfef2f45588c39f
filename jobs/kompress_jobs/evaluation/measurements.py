"""Where measurements on `evaluation.datasets` lie, and how they are read; who makes them is `other_data.py`.

They are no part of a stage's result: its key does not know them, so another data set trains nothing anew. Each is an object of
its own beside the commit, named by the commit's digest, the data set and its fingerprint: it belongs to these weights and these
samples, or it is not there.

    <output>/artifacts/<key>/measurements/<name>.parquet    what was said of each sample; the figures are in the file's metadata
"""

import hashlib

from kompress_api.canonical import canonical_json
from kompress_api.errors import ArtifactMissing
from kompress_api.job import CompressionJobSpec
from kompress_api.places import Dataset
from kompress_jobs.measure import predictions
from kompress_jobs.measure.predictions import Predictions
from kompress_jobs.planning.fingerprint import fingerprint
from kompress_jobs.planning.keys import ACCESS
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.artifacts import Commit
from kompress_jobs.storage.objects import PATIENCE, join


def field_of(index: int) -> str:
    """Path of a data set in the manifest; names its credentials, too."""
    return f"spec.evaluation.datasets[{index}]"


def fingerprints(spec: CompressionJobSpec, *, patience: float = PATIENCE) -> list[str]:
    """Of all data sets, in their order, for the plan."""
    return [fingerprint(entry, role=f"dataset{index}", patience=patience).digest for index, entry in enumerate(spec.evaluation.datasets)]


def place_of(commit: Commit, dataset: Dataset, digest: str, model: str) -> str:
    """Key in the store. `model` is `predictions.OWN`, or `predictions.SOURCE`: spec.model, measured by a stage that starts from it."""
    block = dataset.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=ACCESS)
    named = canonical_json({"artifact": commit.digest, "model": model, "dataset": block, "fingerprint": digest})
    return join(commit.base, artifacts.MEASUREMENTS, f"{hashlib.sha256(named).hexdigest()[:32]}.parquet")


def read(commit: Commit, dataset: Dataset, digest: str, model: str) -> Predictions | None:
    """A measurement; `about` holds its figures: metrics, intervals, samples. None: it was not made, or can't be read."""
    try:
        return predictions.decode(commit.store.read(place_of(commit, dataset, digest, model)))
    except (ArtifactMissing, ValueError):
        return None
