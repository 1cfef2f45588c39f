"""Incidents as files: what a live operator saw, when, and what it must say. A fix is its source, one case, one line of changelog.

A case holds `observed` (as `Observed.to_json` gives it; what is left out has its default), `now`, and what is expected:
`actions` (all of them) and any part of `status`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from kompress_api.job import CompressionJobSpec
from kompress_api.merge import merge
from kompress_operator.observed import Observed
from kompress_operator.reconcile import reconcile
from unit.operator.builders import spec

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"), key=lambda path: path.name)


def load(path: Path) -> dict[str, Any]:
    """`spec` in a case is laid over the usual one; `merged: true` stands for what it merges into."""
    case: dict[str, Any] = YAML(typ="safe", pure=True).load(path)
    seen = case["observed"]
    seen["job"]["spec"] = spec(**(seen["job"].get("spec") or {}))
    if seen.pop("merged", None):
        seen["merged"] = merge(CompressionJobSpec.model_validate(seen["job"]["spec"]), None).dump()
    return case


def part_of(expected: Any, found: Any) -> bool:
    """Whether everything that is expected is there."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(key in found and part_of(value, found[key]) for key, value in expected.items())
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(part_of(e, f) for e, f in zip(expected, found, strict=True))
    return bool(expected == found)


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_case(path: Path) -> None:
    case = load(path)
    observed = Observed.from_json(case["observed"])
    assert Observed.from_json(observed.to_json()) == observed
    decision = reconcile(observed, case["now"])
    asked = [{type(action).__name__: dataclasses.asdict(action)} for action in decision.actions]
    assert part_of(case["actions"], asked), asked
    status = decision.status.dump()
    assert part_of(case.get("status", {}), status), status


def test_there_are_cases() -> None:
    assert CASES
