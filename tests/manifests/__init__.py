"""The table of bad manifests, as both readers of it take it."""

import copy
import dataclasses
import pathlib
from typing import Any

from ruamel.yaml import YAML

TABLE = pathlib.Path(__file__).with_name("bad.yaml")


@dataclasses.dataclass(frozen=True)
class Case:
    what: str
    manifest: dict[str, Any]
    says: list[str]


def good() -> dict[str, Any]:
    return copy.deepcopy(_table()["good"])


def bad() -> list[Case]:
    table = _table()
    return [Case(entry["what"], _changed(table["good"], entry["set"]), entry["says"]) for entry in table["bad"]]


def _table() -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(TABLE)


def _changed(manifest: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    manifest = copy.deepcopy(manifest)
    for pointer, value in changes.items():
        *way, last = [int(step) if step.isdigit() else step for step in pointer.strip("/").split("/")]
        place: Any = manifest
        for step in way:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return manifest
