"""`python -m kompress_jobs.tracking.registered URI NAME VERSION|@ALIAS`: a version of a registered model, for `models/mlflow.py`.

Prints one JSON object, {"version", "digest"} or {"reason", "message", "hint"}, and writes the files into `--folder`.
"""

import argparse
import difflib
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kompress_api.canonical import digest
from kompress_api.contract import JobIdentity
from kompress_api.errors import InvalidManifest, KompressError, UnknownModel
from kompress_api.places import Tracking
from kompress_jobs.tracking.mlflow import Mlflow

MLMODEL = "MLmodel"


def find(server: Mlflow, name: str, which: str) -> Any:
    """The version; raises UnknownModel with what there is."""
    client = server.client
    try:
        if which.startswith("@"):
            return server.call(lambda: client.get_model_version_by_alias(name, which[1:]))
        return server.call(lambda: client.get_model_version(name, which))
    except InvalidManifest:
        known = {model.name: model for model in server.call(lambda: client.search_registered_models(max_results=1000))}
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or sorted(known)[:3]
            hint = f"there is {', '.join(near)}" if near else "it has none yet"
            raise UnknownModel(f"MLflow at {server.uri} has no registered model {name!r}", hint=hint) from None
        aliases = [f"@{alias}" for alias in known[name].aliases]
        numbers = [version.version for version in server.call(lambda: client.search_model_versions(f"name = '{name}'"))]
        raise UnknownModel(
            f"the registered model {name} has no version {which}", hint=f"it has {', '.join(map(str, [*aliases, *numbers]))}"
        ) from None


def files(uri: str, below: str = "") -> Iterator[tuple[str, int]]:
    """Path and size of every file of a model."""
    import mlflow

    for entry in mlflow.artifacts.list_artifacts(artifact_uri=f"{uri}/{below}" if below else uri):
        path = f"{below}/{entry.path.rpartition('/')[2]}" if below else entry.path
        if entry.is_dir:
            yield from files(uri, path)
        else:
            yield path, entry.file_size or 0


def fingerprint(server: Mlflow, version: Any, uri: str) -> str:
    """Digest of all that says what the version is: where it came from, its files' names and sizes, and the MLmodel that describes them."""
    import mlflow

    listed = sorted(server.call(lambda: list(files(uri))))
    described = ""
    if any(path == MLMODEL for path, _ in listed):
        text = server.call(lambda: mlflow.artifacts.load_text(f"{uri}/{MLMODEL}"))
        described = hashlib.sha256(text.encode()).hexdigest()
    made = [version.name, str(version.version), version.source, version.creation_timestamp, dict(version.tags).get("kompress.digest", "")]
    return digest([made, [list(entry) for entry in listed], described])


def answer(uri: str, name: str, which: str, folder: Path | None, patience: float) -> dict[str, str]:
    """What is printed."""
    server = Mlflow(Tracking(uri=uri), JobIdentity(name="kompress", uid=""), patience=patience)
    import mlflow

    mlflow.set_registry_uri(uri)
    version = find(server, name, which)
    address = f"models:/{name}/{version.version}"
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        server.call(lambda: mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(folder)))
    return {"version": str(version.version), "digest": fingerprint(server, version, address)}


def main() -> int:
    """Exit code 0, or that of the error."""
    parser = argparse.ArgumentParser(prog="python -m kompress_jobs.tracking.registered", description="Ask for a registered model.")
    parser.add_argument("uri", help="the tracking server")
    parser.add_argument("name", help="of the registered model")
    parser.add_argument("version", help="a number, or @ALIAS")
    parser.add_argument("--folder", type=Path, help="where its files are written")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds that the server may be out of reach")
    given = parser.parse_args()
    try:
        said, code = answer(given.uri, given.name, given.version, given.folder, given.patience), 0
    except KompressError as error:
        said, code = {"reason": error.reason, "message": error.message, "hint": error.hint}, int(error.exit_code)
    print(json.dumps(said), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
