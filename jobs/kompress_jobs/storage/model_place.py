"""What a manifest names by its place (`file://`, `s3://`), brought to the local disk once per pod: a committed bundle, or bare weights.

A bundle is taken with its commit only, and every byte is checked against it; of weights nothing but safetensors files is taken, and a
pickle is refused by its name.
"""

import fcntl
import hashlib
from collections.abc import Callable
from pathlib import Path

from kompress_api.errors import ArtifactMissing, UnsafeFile
from kompress_api.places import ModelSource, WeightSource
from kompress_jobs.storage import artifacts, files
from kompress_jobs.storage.store import listing

SAFETENSORS = ".safetensors"
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")


def fetch(source: ModelSource | WeightSource, scratch: Path, role: str, *, field: str) -> Path:
    """The folder of the bundle's files; `role` names its credentials (model, student).

    Raises UnsafeFile, ArtifactMissing (no commit), ArtifactCorrupt, and what storage raises.
    """
    refuse_pickle(source.source, field=field)
    if source.source.lower().endswith(SAFETENSORS):
        raise ArtifactMissing(
            f"{source.source} holds weights and does not say of which model",
            hint="name it: architecture: timm://resnet18, for example",
            field=f"{field}.architecture",
        )
    commit = artifacts.locate(source, role)
    return once(
        scratch,
        f"{commit.uri} {commit.digest}",
        lambda folder: files.download(commit.store, commit.prefix, folder, commit.manifest.files),
    )


def fetch_weights(source: ModelSource | WeightSource, scratch: Path, role: str, *, field: str) -> list[Path]:
    """The safetensors files of a bundle or a folder, or the one that is named. Raises as `fetch` does."""
    refuse_pickle(source.source, field=field)
    if not source.source.lower().endswith(SAFETENSORS):
        try:
            return safetensors_of(fetch(source, scratch, role, field=field), source.source, field=field)
        except ArtifactMissing as error:
            if type(error) is not ArtifactMissing:
                raise
    store, found = listing(source, role)
    wanted = [entry for entry in found if not any(part.startswith(".") for part in entry.key.split("/"))]
    safe = [entry for entry in wanted if entry.key.lower().endswith(SAFETENSORS)]
    if not safe:
        for entry in wanted:
            refuse_pickle(f"{store.uri}/{entry.key}", field=field)
        raise ArtifactMissing(
            f"{source.source} is no bundle, no {SAFETENSORS} file and no folder with one",
            hint="check the address",
            field=f"{field}.source",
        )
    folder = once(
        scratch,
        repr((store.uri, [(entry.key, entry.size, entry.etag) for entry in safe])),
        lambda folder: store.download("", folder, [entry.key for entry in safe]),
    )
    return safetensors_of(folder, source.source, field=field)


def once(scratch: Path, what: str, bring: Callable[[Path], object]) -> Path:
    """A folder below scratch that the first process of the pod fills."""
    folder = scratch / "inputs" / hashlib.sha256(what.encode()).hexdigest()[:32]
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder.with_suffix(".done")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            bring(folder)
            done.touch()
    return folder


def safetensors_of(folder: Path, shown: str, *, field: str) -> list[Path]:
    """The weights in a folder; raises ArtifactMissing."""
    found = sorted(folder.rglob(f"*{SAFETENSORS}"))
    if not found:
        raise ArtifactMissing(f"{shown} holds no {SAFETENSORS} file", hint="name a bundle or a safetensors file", field=f"{field}.source")
    return found


def refuse_pickle(uri: str, *, field: str) -> None:
    """Raise UnsafeFile for a file that would execute code when read."""
    if uri.lower().endswith(PICKLES):
        raise UnsafeFile(
            f"{uri} is a pickle: reading it would execute whatever code it holds",
            hint="save the weights with safetensors, or make a bundle with a kompress stage",
            field=f"{field}.source",
        )
