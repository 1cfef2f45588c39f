"""What lies behind the URIs of a manifest at this moment, in one digest each: data sets and models.

A stage key holds these, so that new data behind an old address is new work. The data are not read where a listing tells enough.
"""

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from kompress_api.canonical import digest
from kompress_api.errors import ArtifactMissing, DataUnreadable
from kompress_api.places import Dataset, ModelSource, WeightSource
from kompress_jobs import registry
from kompress_jobs.planning.code_version import factories_of, package_sources
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.objects import PATIENCE, ObjectInfo
from kompress_jobs.storage.store import Store, listing

CONTENT_LIMIT = 2 << 30
"""Bytes in all up to which files on file:// are read; above that their times must do."""
THREADS = 4

Means = Literal["listing", "content", "mtime", "library", "sources"]


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Of a data set."""

    digest: str
    """`sha256:...`"""
    means: Means
    """What was looked at: sorted (path, size, ETag) of an S3 listing; (path, SHA-256) of files; (path, size, mtime in ns) of many
    files; the library or program that the data come from; the sources of the user's factory."""
    files: int = 0
    """How many there are."""
    size: int = 0
    """Bytes in all."""


def fingerprint(dataset: Dataset, *, role: str = "dataset", patience: float = PATIENCE) -> Fingerprint:
    """The fingerprint of a data set; raises DataUnreadable where there is no file, and the store's errors."""
    scheme = dataset.source.partition("://")[0]
    if scheme == "builtin":
        from kompress_jobs.data import builtin  # torch, which nothing else here needs

        return Fingerprint(digest(builtin.module_of(dataset).made_of(dataset)), "library")
    if scheme == "python":
        return Fingerprint(digest({name: package_sources(name) for name in factories_of(dataset)}), "sources")
    store, found = listing(dataset, role, patience=patience)
    if not found:
        raise DataUnreadable(f"{dataset.source} is empty", hint="check the address: there is no file below it", field="spec.dataset.source")
    return fingerprint_of(store, found)


def fingerprint_of(store: Store, found: Sequence[ObjectInfo]) -> Fingerprint:
    """The fingerprint of some objects of a store."""
    size = sum(entry.size for entry in found)
    means: Means
    if store.uri.startswith("s3://"):
        means, rows = "listing", [[entry.key, entry.size, entry.etag] for entry in found]
    elif size <= CONTENT_LIMIT:
        with ThreadPoolExecutor(THREADS) as pool:
            digests = pool.map(lambda entry: _content(store, entry.key), found)
            means, rows = "content", [[entry.key, sha256] for entry, sha256 in zip(found, digests, strict=True)]
    else:
        means, rows = "mtime", [[entry.key, entry.size, entry.mtime_ns] for entry in found]
    return Fingerprint(digest(sorted(rows)), means, len(found), size)


def resolve(source: ModelSource, *, role: str = "model", patience: float = PATIENCE) -> dict[str, str]:
    """What a model source stands for now: commit digest, listing, library version or the sources of a factory; for `keys.source_key`.

    Raises UnknownModel for a factory's package that is not there, ArtifactMissing where nothing lies at the address.
    """
    field = f"spec.{role}"
    found = {"source": _resolve(source, source.source, role, patience, field)}
    if source.architecture is not None:
        found["architecture"] = _resolve(source, source.architecture, role, patience, field)
    for index, weights in enumerate(source.weights):
        found[f"weights{index}"] = _resolve(weights, weights.source, f"{role}-weights{index}", patience, f"{field}.weights[{index}]")
    return found


def _resolve(place: ModelSource | WeightSource, uri: str, role: str, patience: float, field: str) -> str:
    scheme, _, address = uri.partition("://")
    if scheme == "python":
        package = address.partition(":")[0].partition(".")[0]
        return f"sources {package_sources(package)}"
    if scheme in ("s3", "file"):
        try:
            return f"commit {artifacts.locate(place, role, patience=patience).digest}"
        except ArtifactMissing:
            store, found = listing(place, role, patience=patience)
            if not found:
                raise ArtifactMissing(
                    f"{uri} does not exist", hint="check the address: nothing lies there", field=f"{field}.source"
                ) from None
            return f"files {fingerprint_of(store, found).digest}"
    library = registry.load("models", scheme, field=f"{field}.source")
    if hasattr(library, "located"):
        version: str = library.located(place, role, patience=patience, field=field)
        return version
    if hasattr(library, "stands_for"):
        name: str = library.stands_for(address, field=field)
        return name
    return f"{scheme} {importlib.metadata.version(scheme)}"


def _content(store: Store, key: str) -> str:
    sha256 = hashlib.sha256()
    for chunk in store.stream(key):
        sha256.update(chunk)
    return sha256.hexdigest()
