"""Peers are bought in by exact version, or a row of the table could not be measured again."""

import importlib
import re
from pathlib import Path

import pytest

from perf import engine
from perf.engine.peers import PINS, figures

FILES = sorted(PINS.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_peer_s_environment_is_fixed_to_the_version_and_names_no_place(path) -> None:  # type: ignore[no-untyped-def]
    lines = path.read_text().splitlines()
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line)] == []


@pytest.mark.parametrize("part", engine.PARTS)
def test_each_part_that_the_docs_name_can_be_measured_alone(part: str) -> None:
    """`make perf-engine PARTS=...` would end with an ImportError."""
    assert callable(importlib.import_module(f"perf.engine.{part}").results)
    page = (Path(__file__).parents[3] / "docs" / "performance.md").read_text()
    assert f"`{part}`" in page


def test_a_script_s_figures_are_found_among_what_libraries_print() -> None:
    """A warning of two words would become a figure."""
    said = "downloading nothing\nsamples/s 12.5\nstep 3\nmemory 1024\nsaving 0.25 of it\n"
    assert figures(said) == {"samples/s": 12.5, "memory": 1024.0}
