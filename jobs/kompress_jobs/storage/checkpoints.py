"""Checkpoints of a stage, kept where the next attempt finds them (what is in them is the training's business).

    <output>/checkpoints/<key>/<uid>-<attempt>/step-N/...              the files that the ranks of one attempt wrote
    <output>/checkpoints/<key>/<uid>-<attempt>/step-N/parts/<id>.json  digests of the files that one rank uploaded
    <output>/checkpoints/<key>/<uid>-<attempt>/step-N/manifest.json    the commit, written last by rank 0
    <output>/checkpoints/<key>/<uid>-notes/<name>.json                 small results that no attempt of the job need find again
    <output>/checkpoints/<key>/seeds/<number>/...                      the same of a repeat with another seed (`evaluation/seeds.py`)

They lie under the stage key, so another attempt, or another job of the same work, goes on from them. Other attempts may add
and remove checkpoints at any moment: what was listed may be gone when it is read.
"""

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kompress_api.base import Model
from kompress_api.canonical import canonical_json
from kompress_api.errors import ArtifactCorrupt, ArtifactMissing
from kompress_jobs.storage import files
from kompress_jobs.storage.files import StoredFile
from kompress_jobs.storage.objects import join, relative_files
from kompress_jobs.storage.store import Store

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
KEPT = 2
"""Committed checkpoints of a job that are kept: the newest may be damaged by what ended its attempt."""
_COMMIT = re.compile(r"(?P<uid>[^/]+)-(?P<attempt>\d+)/step-(?P<step>\d+)/manifest\.json")
_STEP = re.compile(r"(?P<uid>[^/]+)-(?P<attempt>\d+)/step-(?P<step>\d+)/.+")


class CheckpointFiles(Model):
    """The content of a checkpoint's manifest, and of each rank's part of it."""

    model_config = {**Model.model_config, "extra": "ignore"}

    files: list[StoredFile]
    """Sorted by path."""


@dataclasses.dataclass(frozen=True, order=True)
class Checkpoint:
    """A committed checkpoint; the larger the newer."""

    step: int
    """Optimizer steps of the stage when it was taken."""
    attempt: int
    """Attempt that took it."""
    uid: str
    """Job that took it."""

    @property
    def folder(self) -> str:
        """Below the folder of the stage key."""
        return f"{self.uid}-{self.attempt}/step-{self.step}"


class CheckpointStore:
    """The checkpoints under one stage key, as one attempt of one job sees them."""

    def __init__(self, store: Store, key: str, uid: str, attempt: int) -> None:
        self.store, self.uid, self.attempt = store, uid, attempt
        self.base = join(FOLDER, key)
        self._unusable: set[Checkpoint] = set()

    def newest(self) -> Checkpoint | None:
        """The committed checkpoint with the highest step of any attempt, without those that `fetch` found damaged or gone."""
        return max(self._committed() - self._unusable, default=None)

    def fetch(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Download a checkpoint into the folder, every byte checked.

        Raises ArtifactMissing when it is gone or (ArtifactCorrupt) damaged: then look whether the stage has been committed
        meanwhile, else ask for the `newest` again, which passes this one over.
        """
        prefix = join(self.base, checkpoint.folder)
        try:
            files.download(self.store, prefix, folder, self._read(join(prefix, MANIFEST)).files)
        except ArtifactMissing as problem:
            self._unusable.add(checkpoint)
            log.warning("the checkpoint at step %d of attempt %d can't be used: %s", checkpoint.step, checkpoint.attempt, problem)
            raise

    def upload(self, step: int, folder: Path, paths: Iterable[str] | None = None) -> None:
        """Store this rank's files (all of the folder, or the relative `paths`) of the checkpoint at `step`; every rank may do so."""
        own = relative_files(folder) if paths is None else sorted(paths)
        if not own:
            return
        described = files.describe(folder, own)
        prefix = self._own(step)
        self.store.upload(folder, prefix, own)
        name = hashlib.sha256("\n".join(own).encode()).hexdigest()[:16]
        self.store.write(join(prefix, "parts", f"{name}.json"), canonical_json(CheckpointFiles(files=described).dump()))

    def commit(self, step: int) -> Checkpoint:
        """Make the checkpoint at `step` count, after every rank's `upload` has returned, and remove what is older than the last two.

        Raises ValueError when nothing was uploaded.
        """
        prefix = self._own(step)
        parts = sorted(self.store.list(join(prefix, "parts") + "/"), key=lambda entry: entry.mtime_ns)
        # A file may stand in an older part too, when an earlier start of this attempt had other ranks: the newer one holds.
        found = {file.path: file for part in parts for file in self._read(part.key).files}
        if not found:
            raise ValueError(f"no rank has uploaded a file of the checkpoint at step {step}")
        manifest = CheckpointFiles(files=[found[path] for path in sorted(found)])
        self.store.write(join(prefix, MANIFEST), canonical_json(manifest.dump()))
        self._prune()
        return Checkpoint(step, self.attempt, self.uid)

    def nested(self, name: str) -> "CheckpointStore":
        """Checkpoints of another training of the same stage, below `name`; nobody takes the ones for the others."""
        found = CheckpointStore(self.store, "", self.uid, self.attempt)
        found.base = join(self.base, name)
        return found

    def note(self, name: str, content: Any) -> None:
        """Keep a small result, as JSON, for the attempts of this job that may follow (rank 0)."""
        self.store.write(join(self.base, f"{self.uid}-notes", f"{name}.json"), canonical_json(content))

    def noted(self, name: str) -> Any:
        """What an attempt of this job has noted under this name; None where none has."""
        try:
            return json.loads(self.store.read(join(self.base, f"{self.uid}-notes", f"{name}.json")))
        except ArtifactMissing:
            return None

    def remove_own(self) -> None:
        """Remove the checkpoints and notes of this job (all of its attempts), committed or not: its stage has its artifact."""
        for entry in self._committed():
            if entry.uid == self.uid:
                self.store.delete([join(self.base, entry.folder, MANIFEST)])
        own = {entry.folder.partition("/")[0] for entry in self._steps() if entry.uid == self.uid}
        for folder in own | {f"{self.uid}-{self.attempt}", f"{self.uid}-notes"}:
            self.store.remove(join(self.base, folder) + "/")

    def _own(self, step: int) -> str:
        return join(self.base, Checkpoint(step, self.attempt, self.uid).folder)

    def _committed(self) -> set[Checkpoint]:
        return self._matching(_COMMIT)

    def _steps(self) -> set[Checkpoint]:
        return self._matching(_STEP)

    def _matching(self, pattern: re.Pattern[str]) -> set[Checkpoint]:
        below = self.base + "/"
        names = (pattern.fullmatch(entry.key.removeprefix(below)) for entry in self.store.list(below))
        return {Checkpoint(int(name["step"]), int(name["attempt"]), name["uid"]) for name in names if name}

    def _prune(self) -> None:
        """Keep the newest two of this job and whatever is not committed yet beyond them; of later attempts keep all."""
        mine = sorted(entry for entry in self._committed() if entry.uid == self.uid and entry.attempt <= self.attempt)
        kept = mine[-KEPT:]
        for entry in self._steps():
            if entry.uid == self.uid and entry.attempt <= self.attempt and entry not in kept and entry < kept[-1]:
                prefix = join(self.base, entry.folder)
                self.store.delete([join(prefix, MANIFEST)])  # first, so that a reader finds it gone and not torn
                self.store.remove(prefix + "/")

    def _read(self, key: str) -> CheckpointFiles:
        try:
            return CheckpointFiles.model_validate_json(self.store.read(key))
        except ValidationError as error:
            raise ArtifactCorrupt(f"{self.store.uri}/{key} is no list of files", hint="an older checkpoint will be used") from error
