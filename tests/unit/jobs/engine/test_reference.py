"""Every method is on the page of methods, and has a line in an example that a reader can take: one that plans."""

from pathlib import Path

import pytest

from kompress_api.job import CompressionJobSpec
from kompress_jobs import data, reference
from kompress_jobs.rehearsal.rehearse import rehearse
from kompress_jobs.samples.splits import Data

METHODS = {path: spec for path, spec in reference.examples() if path.startswith("examples/methods/")}
PLACES = ("spec.model.source", "spec.dataset")
"""Sections whose examples need a user's own models and data; the others must have one."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return data.load(next(iter(METHODS.values())).dataset, tmp_path_factory.mktemp("digits"))


def test_the_page_is_what_the_code_gives() -> None:
    assert (reference.ROOT / reference.PAGE).read_text() == reference.page(), "run `python -m kompress_jobs.reference`"


def test_every_method_that_is_built_says_what_it_is_and_has_its_line_in_an_example() -> None:
    jobs = list(reference.examples())
    for section in reference.sections():
        found = list(section.modules())
        assert found, section.field
        for value, module in found:
            what, _ = reference.words(module)
            assert what, f"{section.field}: {value} says nothing of itself"
            example = reference.example_of(section, value, jobs)
            assert example or section.field in PLACES, f"{section.field}: {value} has no line below examples/methods"
    assert all(example for *_, example in reference.modes(jobs))


@pytest.mark.parametrize("path", METHODS)
def test_the_examples_of_methods_plan(path: str, digits: Data, tmp_path: Path) -> None:
    """Each stage works on the model that those above would hand it; nothing is trained."""
    spec: CompressionJobSpec = METHODS[path]
    assert (spec.dataset.source, spec.dataset.image_size) == ("builtin://digits", digits.image_size)
    assert set(rehearse(spec, digits, tmp_path)) == {"source", *(stage.name for stage in spec.stages)}
