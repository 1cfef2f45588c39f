"""The CRDs are generated, complete and small enough for every cluster."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from kompress_api import crd, reference

ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.parametrize("name", crd.files())
def test_the_committed_file_is_what_the_models_give(name: str) -> None:
    assert (ROOT / "crds" / name).read_text() == crd.files()[name], "run `python -m kompress_api.crd`"
    assert len(crd.files()[name]) <= crd.MAX_BYTES


@pytest.mark.parametrize("name", reference.files())
def test_the_reference_pages_are_what_the_code_gives(name: str) -> None:
    assert (ROOT / "docs" / "reference" / name).read_text() == reference.files()[name], "run `python -m kompress_api.reference`"


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


SPECS = {name: entry["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] for name, entry in
         {"job": crd.job_crd(), "runtime": crd.runtime_crd()}.items()}  # fmt: skip


def test_every_field_is_described() -> None:
    """`kubectl explain` is the manual that every user has at hand."""
    for root in SPECS.values():
        for part in ("spec", "status"):
            silent = [
                path
                for path, node in nodes(root.get(part, {}), part)
                if path[-1] not in "]}" and path != "status" and not node.get("description")
            ]
            assert silent == []


def test_every_default_is_told_by_the_description() -> None:
    """`kubectl explain` shows descriptions and no defaults."""
    for root in SPECS.values():
        with_default = [(path, node) for path, node in nodes(root["spec"], "spec") if "default" in node]
        silent = [path for path, node in with_default if not isinstance(node["default"], dict) and "Default: `" not in node["description"]]
        assert silent == []


def test_everything_in_a_spec_has_a_cap() -> None:
    """Without caps the API server can't bound the cost of the rules, and etcd is filled by one job."""
    for root in SPECS.values():
        for path, node in nodes(root["spec"], "spec"):
            if node.get("type") == "string":
                assert "maxLength" in node or "enum" in node, path
            if node.get("type") == "array":
                assert "maxItems" in node, path
            if "additionalProperties" in node or node.get("x-kubernetes-preserve-unknown-fields"):
                assert "maxProperties" in node, path


def test_what_a_runtime_may_hold_has_no_default() -> None:
    """A default in the CRD would win over the platform team's."""
    held = [path for path, node in nodes(SPECS["runtime"]["spec"], "spec") if "default" in node]
    assert [path for path in held if not path.startswith("spec.runtime.resources")] == []
