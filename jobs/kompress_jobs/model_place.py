"""A committed bundle that a manifest names by its place (`file://`, `s3://`), brought to the local disk once per pod.

Only a folder with its commit is taken, and every byte is checked against it; a pickle is refused by its name.
"""

import fcntl
import hashlib
from pathlib import Path

from kompress_api.errors import UnsafeFile
from kompress_api.places import ModelSource
from kompress_jobs.bundle import PICKLES
from kompress_jobs.storage import artifacts, files


def fetch(source: ModelSource, scratch: Path, role: str, *, field: str) -> Path:
    """The folder of the bundle's files; `role` names its credentials (model, student).

    Raises UnsafeFile, ArtifactMissing (no commit), ArtifactCorrupt, and what storage raises.
    """
    if source.source.lower().endswith(PICKLES):
        raise UnsafeFile(
            f"{source.source} is a pickle: reading it would execute whatever code it holds",
            hint="save the weights with safetensors, or make a bundle with a kompress stage",
            field=f"{field}.source",
        )
    commit = artifacts.locate(source, role)
    folder = scratch / "inputs" / hashlib.sha256(f"{commit.uri} {commit.digest}".encode()).hexdigest()[:32]
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder.with_suffix(".done")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            files.download(commit.store, commit.prefix, folder, commit.manifest.files)
            done.touch()
    return folder
