"""`kompress validate`: every problem of every file, without a cluster."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import typer

from kompress_api.manifest import ManifestError
from kompress_operator.cli.exits import Exit, say
from kompress_operator.cli.manifests import read


def validate(files: Sequence[pathlib.Path], *, as_json: bool) -> None:
    """Ends the command with exit 2 where a file is not valid."""
    verdicts: list[dict[str, Any]] = []
    for path in files:
        try:
            objects = [{"kind": entry.kind, "name": entry.metadata.name} for entry in read(path)]
            verdicts.append({"file": str(path), "valid": True, "objects": objects, "problems": []})
        except ManifestError as error:
            verdicts.append({"file": str(path), "valid": False, "objects": [], "problems": error.problems})
    if as_json:
        print(json.dumps(verdicts, indent=2, default=dataclasses.asdict))
    else:
        for verdict in verdicts:
            _tell(verdict)
    if not all(verdict["valid"] for verdict in verdicts):
        raise typer.Exit(Exit.INVALID)


def _tell(verdict: dict[str, Any]) -> None:
    for entry in verdict["objects"]:
        print(f"{verdict['file']}: {entry['kind']} {entry['name']} is valid")
    for problem in verdict["problems"]:
        say(f"error: {verdict['file']}: {problem}")
