"""What can be set on the chart: each value documented, checked, used by a template, and set by a supported combination."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

CHARTS = Path(__file__).parents[3] / "charts"
CHART = CHARTS / "kompress"
specification = importlib.util.spec_from_file_location("generate", CHARTS / "generate.py")
generate = importlib.util.module_from_spec(specification)
specification.loader.exec_module(generate)

VALUES = generate.Values((CHART / "values.yaml").read_text())
LEAVES = {".".join(path): default for path, default in VALUES.leaves()}
COMBINATIONS = sorted((CHART / "ci").glob("*-values.yaml"))


def test_schema_and_readme_are_generated_from_the_values() -> None:
    stale = [path.name for path, text in generate.generated().items() if path.read_text() != text]
    assert not stale, "run `python charts/generate.py`"


def test_every_value_is_set_by_a_supported_combination() -> None:
    set_somewhere = {path for file in COMBINATIONS for path in paths(YAML(typ="safe").load(file.read_text()) or {})}
    assert LEAVES.keys() - set_somewhere == set()


def test_every_value_has_another_value_than_its_default_somewhere() -> None:
    given = [(path, value) for file in COMBINATIONS for path, value in paths(YAML(typ="safe").load(file.read_text()) or {}).items()]
    assert [path for path, default in LEAVES.items() if all(value == default for other, value in given if other == path)] == []


def test_templates_use_every_value_and_no_other() -> None:
    texts = [path.read_text() for path in (CHART / "templates").iterdir()]
    used = {name for text in texts for name in re.findall(r"\.Values\.([\w.]+)", text)}
    # A template may take a block (`with .Values.metrics.podMonitor`) and then its members.
    assert [name for name in used if not any(leaf == name or leaf.startswith(f"{name}.") for leaf in LEAVES)] == []
    assert [leaf for leaf in LEAVES if not any(leaf == name or leaf.startswith(f"{name}.") for name in used)] == []


def test_a_value_without_a_comment_is_refused() -> None:
    with_gap = "# Outer.\nouter:\n  # Inner.\n  inner: 1\n\n  bare: 2\n"
    with pytest.raises(ValueError, match=r"`outer\.bare` has no comment"):
        generate.Values(with_gap).schema()


def paths(values: Any, above: str = "") -> dict[str, Any]:
    """What a file of values sets, by the path of the value."""

    def walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and path not in LEAVES:
            for key, inner in value.items():
                yield from walk(inner, f"{path}.{key}".lstrip("."))
        else:
            yield path, value

    return dict(walk(values, above))
