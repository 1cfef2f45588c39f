"""mlflow://NAME@ALIAS or mlflow://NAME/VERSION: a version of a registered model, on the job's tracking server or that of `endpoint`.

What `report` registers is a bundle and comes back as one. MLflow's own flavors keep weights as pickles, which are never read. MLflow
takes seconds and 170 MiB to import, which no process that trains should pay, so a child asks and downloads (`tracking/registered.py`).
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from kompress_api import errors
from kompress_api.contract import CREDENTIALS_FOLDER, ENV_CREDENTIALS, ENV_TRACKING
from kompress_api.errors import ArtifactMissing, InvalidManifest, KompressError, MethodRefused, StorageUnavailable, UnsafeFile
from kompress_api.places import ModelSource, WeightSource
from kompress_jobs.description import DESCRIPTION
from kompress_jobs.storage.model_place import PICKLES, once
from kompress_jobs.storage.objects import PATIENCE

EXPORT = "export.json"
CHILD = "kompress_jobs.tracking.registered"


def fetch(source: ModelSource | WeightSource, scratch: Path, role: str, *, field: str) -> Path:
    """The folder of the bundle that is registered, downloaded once per pod.

    Raises UnsafeFile for a version that is kept as a pickle, MethodRefused for an export, and what MLflow's errors become.
    """
    folder = download(source, scratch, role, field=field)
    if not (folder / DESCRIPTION).is_file():
        raise refusal(folder, source.source, DESCRIPTION, field=field)
    return folder


def fetch_weights(source: ModelSource | WeightSource, scratch: Path, role: str, *, field: str) -> list[Path]:
    """The safetensors files of the version; raises as `fetch` does."""
    folder = download(source, scratch, role, field=field)
    found = sorted(folder.rglob("*.safetensors"))
    if not found:
        raise refusal(folder, source.source, "safetensors file", field=field)
    return found


def located(source: ModelSource | WeightSource, role: str, *, patience: float, field: str) -> str:
    """The version that stands behind the address now, and a digest of its files; see `fingerprint.resolve`."""
    found = ask(source, role, patience=patience, field=field)
    return f"mlflow version {found['version']} {found['digest']}"


def download(source: ModelSource | WeightSource, scratch: Path, role: str, *, field: str) -> Path:
    """The files of the version, which the first process of a pod asks for: an alias may move meanwhile, the pod's models may not differ."""
    return once(
        scratch,
        f"{source.source} {source.endpoint}",
        lambda folder: ask(source, role, patience=PATIENCE, field=field, folder=folder),
    )


def refusal(folder: Path, shown: str, wanted: str, *, field: str) -> KompressError:
    """Why what was registered can't be loaded."""
    pickles = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in PICKLES)
    if pickles:
        return UnsafeFile(
            f"{shown} holds {pickles[0]}, a pickle, and no {wanted}",
            hint="pickles execute code when read: register what a kompress job makes (tracking.registeredModel), or a safetensors file and "
            "name its architecture",
            field=f"{field}.source",
        )
    if (folder / EXPORT).is_file():
        return MethodRefused(
            f"{shown} is an exported model, which no stage can change any more",
            hint="name the bundle that it was exported from (the manifest.json of tag kompress.artifact says which), "
            "or a version that a job without export has registered",
            field=f"{field}.source",
        )
    return ArtifactMissing(f"{shown} holds no {wanted}", hint="name a version that a kompress job has registered", field=f"{field}.source")


def ask(source: ModelSource | WeightSource, role: str, *, patience: float, field: str, folder: Path | None = None) -> dict[str, Any]:
    """What the child says of the version, having written its files where a folder is named. Raises its error with the field's path."""
    name, which = parts(source.source, field=field)
    uri = source.endpoint or os.environ.get(ENV_TRACKING, "")
    if not uri:
        raise InvalidManifest(
            "there is no tracking server to ask", hint="name one: endpoint, or spec.tracking.uri", field=f"{field}.source"
        )
    command = [sys.executable, "-m", CHILD, uri, name, which, "--patience", str(patience)]
    command += ["--folder", str(folder)] if folder else []
    own = role if source.endpoint or source.credentials_secret else "tracking"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(own))
    words = done.stdout.strip().splitlines()
    try:
        said: dict[str, Any] = json.loads(words[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [str(done.returncode)])[-1]
        raise StorageUnavailable(f"{source.source} can't be had: {last}", hint="see the log", field=f"{field}.source") from None
    if "reason" in said:
        raise getattr(errors, said["reason"])(said["message"], hint=said["hint"], field=f"{field}.source")
    return said


def parts(uri: str, *, field: str) -> tuple[str, str]:
    """`mlflow://flowers@champion` -> (`flowers`, `@champion`), `mlflow://flowers/3` -> (`flowers`, `3`)."""
    address = unquote(uri.partition("://")[2])
    name, _, alias = address.rpartition("@")
    if name and alias and "/" not in address:
        return name, f"@{alias}"
    name, _, number = address.rpartition("/")
    if name and number.isdecimal() and "/" not in name:
        return name, number
    raise InvalidManifest(
        f"{uri} names no version of a registered model", hint="write mlflow://NAME@ALIAS or mlflow://NAME/VERSION", field=f"{field}.source"
    )


def environment(role: str) -> dict[str, str]:
    """The child's: with the keys of the role's Secret, and of no other."""
    base = os.environ.get(ENV_CREDENTIALS, CREDENTIALS_FOLDER)
    mounted = Path(base, role).glob("*") if base else ()
    keys = {path.name: path.read_text().strip() for path in mounted if path.name.startswith(("MLFLOW_", "AWS_"))}
    return {**os.environ, **keys, ENV_CREDENTIALS: ""}
