"""What a stage made, kept under its stage key so that nobody makes it twice (section 5 of the design).

    <output>/artifacts/<key>/<uid>-<attempt>/...    the files of one attempt; no other attempt ever writes there
    <output>/artifacts/<key>/manifest.json          the commit: names the winner's folder and the digest of every file

The manifest is written last and only if there is none, so the first writer wins and the artifact is there as a whole or not
at all. Who comes second checks the winner's files, takes them as his own result and removes only his own folder. A commit
whose files have changed is replaced by compare-and-swap. A commit never moves, so the same three moves suffice on a bucket
and in a folder: create, replace, read.
"""

import dataclasses
import hashlib
import logging
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kompress_api.base import Model
from kompress_api.canonical import canonical_json
from kompress_api.errors import ArtifactCorrupt, ArtifactMissing, StorageUnavailable
from kompress_api.places import Access
from kompress_jobs.storage import files
from kompress_jobs.storage.files import StoredFile
from kompress_jobs.storage.objects import PATIENCE, join
from kompress_jobs.storage.store import Store, open_store, uri_of

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FOLDER = "artifacts"
MEASUREMENTS = "measurements"
"""Folder of what was measured sample by sample: beside the model by its own stage, beside the manifest where it was asked for later."""
MAX_ROUNDS = 20
"""Rounds of a fight over a damaged commit; each lost round means that another writer got further."""


class ManifestInput(Model):
    """What the artifact was made of."""

    role: str
    """See `kompress_api.dag.Input`."""
    stage: str
    """Stage of the job that made this artifact, or `source`."""
    key: str = ""
    """Its stage key."""
    digest: str = ""
    """SHA-256 of its manifest."""


class Manifest(Model):
    """The content of `manifest.json`."""

    model_config = {**Model.model_config, "extra": "ignore"}

    key: str
    """Stage key, 64 hex digits."""
    folder: str
    """The winner's folder beside the manifest: `<uid>-<attempt>`."""
    files: list[StoredFile]
    """Its files, sorted by path."""
    metrics: dict[str, float] = {}
    """Flat finite figures."""
    details: dict[str, Any] = {}
    """All else that was measured."""
    inputs: list[ManifestInput] = []
    """What it was made of."""


@dataclasses.dataclass(frozen=True)
class Commit:
    """A committed artifact."""

    store: Store = dataclasses.field(repr=False, compare=False)
    base: str
    """Folder of the manifest, below the store's URI."""
    digest: str
    """`sha256:` and the SHA-256 of the manifest."""
    manifest: Manifest
    reused: bool = dataclasses.field(default=True, compare=False)
    """Another attempt made it."""
    replaced: str = dataclasses.field(default="", compare=False)
    """Why the commit that stood here was replaced by this one; empty where none was."""

    @property
    def key(self) -> str:
        """Stage key."""
        return self.manifest.key

    @property
    def prefix(self) -> str:
        """Folder of the files, below the store's URI."""
        return join(self.base, self.manifest.folder)

    @property
    def uri(self) -> str:
        """Folder of the files."""
        return f"{self.store.uri}/{self.prefix}"

    @property
    def metrics(self) -> dict[str, float]:
        """Figures that the stage measured."""
        return self.manifest.metrics

    @property
    def details(self) -> dict[str, Any]:
        """All else that it measured."""
        return self.manifest.details


@dataclasses.dataclass(frozen=True)
class _Damaged:
    etag: str
    why: ArtifactMissing


def commit(
    store: Store,
    key: str,
    uid: str,
    attempt: int,
    folder: Path,
    metrics: Mapping[str, float],
    details: Mapping[str, Any],
    inputs: Sequence[ManifestInput],
) -> Commit:
    """Store the folder's files as the artifact of `key`, or take the one that is there already.

    `reused` of what is returned tells which. Raises ValueError for a folder that is empty or holds links, and for figures that
    are not finite; errors of the store pass through, and the next try goes on where this one stopped.
    """
    base, own = join(FOLDER, key), f"{uid}-{attempt}"
    standing = _look(store, base)
    if isinstance(standing, Commit):
        # Files of a commit are never written again, not even by the attempt that made them.
        return _settle(standing, own)
    described = files.describe(folder)
    if not described:
        raise ValueError(f"{folder} holds no file to commit")
    manifest = Manifest(key=key, folder=own, files=described, metrics=dict(metrics), details=dict(details), inputs=list(inputs))
    content = canonical_json(manifest.dump())
    store.upload(folder, join(base, own), [file.path for file in described])
    for _ in range(MAX_ROUNDS):
        if standing is None:
            won = store.create(join(base, MANIFEST), content)
        else:
            won = store.replace(join(base, MANIFEST), content, standing.etag)
        if won:
            replaced = "" if standing is None else str(standing.why)
            if replaced:
                log.warning("replaced the commit of %s: %s", key, replaced)
            return Commit(store, base, _digest(content), manifest, reused=False, replaced=replaced)
        standing = _look(store, base)
        if isinstance(standing, Commit):
            return _settle(standing, own)
        time.sleep(random.uniform(0, 0.2))
    raise StorageUnavailable(
        f"the commit of {store.uri}/{base} was lost {MAX_ROUNDS} times to writers whose files were gone or damaged each time",
        hint="find out what removes or changes files there",
    )


def find(store: Store, key: str) -> Commit | None:
    """The commit under a stage key, its files unseen; None: there is none. Raises ArtifactCorrupt when it can't be read as one."""
    try:
        content = store.read(join(FOLDER, key, MANIFEST))
    except ArtifactMissing:
        return None
    return _parse(store, join(FOLDER, key), content)


def verify(store: Store, commit: Commit) -> None:
    """Read every file of a commit; raises ArtifactMissing or ArtifactCorrupt with file and digest."""
    files.verify(store, commit.prefix, commit.manifest.files)


def reusable(store: Store, key: str) -> Commit | None:
    """The commit under a stage key, every byte checked; None, and a warning, when it is damaged."""
    found = _look(store, join(FOLDER, key))
    if isinstance(found, _Damaged):
        log.warning("the commit of %s can't be reused: %s", key, found.why)
        return None
    return found


def fetch(store: Store, uri: str, digest: str, folder: Path) -> Commit:
    """Download an input by the URI and digest that its stage reported, every byte checked.

    Raises ArtifactMissing when commit or files are gone, ArtifactCorrupt when they are not what the digest says.
    """
    prefix = uri.removeprefix(f"{store.uri}/")
    base, _, own = prefix.rpartition("/")
    if prefix == uri or not base:
        raise ArtifactMissing(f"{uri} is not below {store.uri}", hint="an input lies in the job's own output")
    content = _read_manifest(store, base, uri)
    if digest and _digest(content) != digest:
        raise ArtifactCorrupt(
            f"the commit of {uri} has changed: {digest} was expected, {_digest(content)} is there",
            hint="it was damaged and made anew, or tampered with: run the job again under another name, which takes what is there now",
        )
    found = _parse(store, base, content)
    if found.manifest.folder != own:
        raise ArtifactMissing(
            f"the commit of {store.uri}/{base} names {found.manifest.folder}, not {own}", hint="use the folder that it names"
        )
    files.download(store, found.prefix, folder, found.manifest.files)
    return found


def locate(place: Access, role: str, *, patience: float = PATIENCE) -> Commit:
    """The commit of a bundle that a manifest names: the folder with its files, or the one with `manifest.json` above it.

    Raises ArtifactMissing where there is no commit: an upload that was cut off, or no bundle of kompress.
    """
    uri = uri_of(place).rstrip("/")
    parent, _, name = uri.rpartition("/")
    places = [(uri, "")] + ([(parent, name)] if parent.count("/") > 1 else [])
    for base_uri, folder in places:
        store = open_store(place, role, uri=base_uri, patience=patience)
        try:
            content = store.read(MANIFEST)
        except ArtifactMissing:
            continue
        found = _parse(store, "", content)
        if folder in ("", found.manifest.folder):
            return found
    raise ArtifactMissing(
        f"{uri} has no commit: neither it nor the folder above holds a {MANIFEST} that names it",
        hint=f"give the folder of a finished artifact (copy it with its {MANIFEST}); one without was never finished",
        field=f"spec.{role}",
    )


def _look(store: Store, base: str) -> Commit | _Damaged | None:
    """What stands at the commit's place, every byte checked."""
    try:
        content, etag = store.read_tagged(join(base, MANIFEST))
    except ArtifactMissing:
        return None
    try:
        found = _parse(store, base, content)
        verify(store, found)
    except ArtifactMissing as problem:  # ArtifactCorrupt too
        return _Damaged(etag, problem)
    return found


def _settle(standing: Commit, own: str) -> Commit:
    """A good commit stands: a retried put that finds its own has won; else only our own folder goes."""
    if standing.manifest.folder == own:
        return dataclasses.replace(standing, reused=False)
    standing.store.remove(join(standing.base, own) + "/")
    return standing


def _read_manifest(store: Store, base: str, uri: str) -> bytes:
    try:
        return store.read(join(base, MANIFEST))
    except ArtifactMissing as error:
        raise ArtifactMissing(f"{uri} has no commit: {store.uri}/{base}/{MANIFEST} is not there", hint="let its stage run again") from error


def _parse(store: Store, base: str, content: bytes) -> Commit:
    where = f"{store.uri}/{join(base, MANIFEST)}"
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ArtifactCorrupt(
            f"{where} is no manifest of an artifact: {error.errors()[0]['msg']}", hint="let its stage run again"
        ) from error
    if "/" in manifest.folder or manifest.folder in ("", ".", ".."):
        raise ArtifactCorrupt(f"{where} names the folder {manifest.folder!r}", hint="let its stage run again")
    return Commit(store, base, _digest(content), manifest)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
