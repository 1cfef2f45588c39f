"""What kompress asks of a place for objects, whether a bucket or a folder; `s3.py` and `file.py` answer it.

A key is a path below the place's URI, with `/` between its parts. No object's key is ever the prefix folder of another's
(`a` and `a/b`): S3 would allow it, a folder and the S3 servers that keep objects in one can't.

Every method raises errors of `kompress_api.errors` only: BucketMissing, CredentialsRefused, StorageUnavailable (after
`patience` seconds of retries), StorageFailure (disk full), ArtifactMissing for a key that is not there, and SpecCannotWork
for a place that can't be used at all. Each names the place, the key and the operation.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from kompress_api.errors import InvalidManifest, NoConditionalWrites
from kompress_api.places import Access, Dataset, ModelSource, Output, WeightSource
from kompress_jobs.storage.objects import PATIENCE, ObjectInfo


class Store(Protocol):
    """Objects below one URI. Safe to share between threads, and to take along into a forked process."""

    uri: str
    """s3://bucket/prefix or file:///path, without a slash at its end."""

    def read(self, key: str) -> bytes:
        """The whole object."""

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """The whole object and its ETag, which belong together."""

    def stream(self, key: str) -> Iterator[bytes]:
        """The object in chunks of at most CHUNK bytes, going on where a broken connection left off."""

    def read_part(self, entry: ObjectInfo, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop` of a listed object; raises ArtifactCorrupt where it has another ETag now."""

    def write(self, key: str, content: bytes) -> None:
        """Make or overwrite the object; a reader sees the old or the new one, whole."""

    def create(self, key: str, content: bytes) -> bool:
        """Make the object unless it is there, durably and atomically; False: it was there.

        After a lost answer the retry finds its own object: False does not say whose it is.
        """

    def replace(self, key: str, content: bytes, etag: str) -> bool:
        """Overwrite the object if it still has this ETag; False: it has another one, or is gone. As to lost answers: see `create`."""

    def head(self, key: str) -> ObjectInfo | None:
        """What a listing would show of the object; None: not there."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects below a folder (`prefix` ends with `/`, or is empty), sorted by key."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""

    def remove(self, prefix: str) -> None:
        """Remove all that lies below a folder (`prefix` ends with `/`), also what a writer that died left half written."""

    def upload(self, folder: Path, prefix: str, paths: Iterable[str] | None = None) -> None:
        """Write the folder's files (all, or those of the relative `paths`) below `prefix`, several at a time."""

    def download(
        self, prefix: str, folder: Path, paths: Sequence[str] | None = None, *, listed: Sequence[ObjectInfo] | None = None
    ) -> None:
        """Write what lies below `prefix` (all, or the relative `paths`) into the folder, several at a time.

        With what a listing told of the `paths` (`listed`) raises ArtifactCorrupt for an object that has another ETag now.
        """


def open_store(place: Access, role: str, *, uri: str | None = None, patience: float = PATIENCE) -> Store:
    """The store of a place in the manifest.

    `role` names the folder of its mounted credentials: output, dataset, model, ... `uri` is given where it is not the place's own.
    Raises InvalidManifest for a scheme that holds no objects, CredentialsRefused when the credentials can't be read.
    """
    uri = uri or uri_of(place)
    if uri.startswith("s3://"):
        from kompress_jobs.storage.s3 import S3Store

        return S3Store(uri, role, endpoint=place.endpoint, region=place.region, secret=place.credentials_secret, patience=patience)
    if uri.startswith("file://"):
        from kompress_jobs.storage.file import FileStore

        return FileStore(uri)
    raise InvalidManifest(f"{uri} is no place for files", hint="use s3://bucket/prefix or file:///path", field=f"spec.{role}")


def listing(place: Access, role: str, *, patience: float = PATIENCE) -> tuple[Store, list[ObjectInfo]]:
    """The files below a URI, or the one file that it names, with the store that their keys belong to."""
    uri = uri_of(place).rstrip("/")
    store = open_store(place, role, patience=patience)
    if found := list(store.list()):
        return store, found
    parent, _, name = uri.rpartition("/")
    if parent.count("/") > 1 and not parent.endswith("/") and name:
        above = open_store(place, role, uri=parent, patience=patience)
        if (single := above.head(name)) is not None:
            return above, [single]
    return store, []


def uri_of(place: Access) -> str:
    """Where the place is."""
    if isinstance(place, Output):
        return place.uri
    if isinstance(place, Dataset | ModelSource | WeightSource):
        return place.source
    raise TypeError(f"{type(place).__name__} has no URI")


def prove_conditional(store: Store) -> None:
    """Prove that the store can be written, read and cleared, and that it refuses a second create and a stale replace.

    Raises NoConditionalWrites where it does not: two writers would both believe that they had won a commit.
    """
    key = f"probes/{secrets.token_hex(8)}"
    try:
        _prove(store, key)
    finally:
        store.delete([key])


def _prove(store: Store, key: str) -> None:
    def refuse(what: str) -> NoConditionalWrites:
        return NoConditionalWrites(
            f"{store.uri} {what}, so that two writers could both win a commit",
            hint="use a store that honours If-None-Match and If-Match on PUT (AWS S3, MinIO, Ceph, versitygw), or a folder with hard links",
            field="spec.output.uri",
        )

    # The first may find its own object when an answer was lost, and says False then: what it holds tells.
    if not store.create(key, b"first") and store.read(key) != b"first":
        raise refuse("could not make a new object by a conditional put")
    if store.create(key, b"second"):
        raise refuse("ignores the condition If-None-Match: *")
    content, etag = store.read_tagged(key)
    if content != b"first":
        raise refuse("overwrote an object that it said it had refused to write")
    if not store.replace(key, b"third", etag) and store.read(key) != b"third":
        raise refuse("refused a replacement under the right ETag")
    if store.replace(key, b"fourth", etag):
        raise refuse("ignores the condition If-Match")
