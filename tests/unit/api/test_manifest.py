"""A user who applies a manifest must be told at once, by path, value and reason, what is wrong with it."""

import json

import pytest

import manifests
from kompress_api import manifest
from kompress_api.manifest import ManifestError

LAUGHS = "a0: &a0 [x]\n" + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 7))


def problems(text: str | bytes) -> str:
    with pytest.raises(ManifestError) as caught:
        manifest.load(text)
    return str(caught.value)


@pytest.mark.parametrize("case", manifests.bad(), ids=lambda case: case.what)
def test_bad_manifest_is_refused_in_the_api_servers_words(case: manifests.Case) -> None:
    said = problems(json.dumps(case.manifest))
    assert [sentence for sentence in case.says if sentence not in said] == [], said


def test_good_manifest_is_taken() -> None:
    (job,) = manifest.load(json.dumps(manifests.good()))
    assert [stage.kind for stage in job.spec.stages] == ["fineTune", "distill", "prune", "export"]


def test_all_problems_are_told_at_once() -> None:
    bad = manifests.good()
    bad["spec"]["stages"][0]["fineTune"] = {"epochs": -1, "batchSize": 0, "precison": "BF16"}
    said = problems(json.dumps(bad))
    assert said.count("fineTune") == 5  # two paths said twice each, one unknown field
    assert "did you mean precision?" in said


def test_exponents_are_numbers_as_kubectl_reads_them() -> None:
    text = json.dumps(manifests.good()).replace("0.0003", "3e-4")
    (job,) = manifest.load(text)
    assert job.spec.stages[0].spec.learning_rate == 3e-4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no object in it"),
        ("a: [", "no YAML"),
        ("- 1", "a manifest is a map, not list"),
        ("a: 1\na: 2", "duplicate key"),
        (b"\xff\xfe\x00", "no YAML"),
        ("kind: CompressionJobb\napiVersion: kompress.io/v1alpha1", "did you mean CompressionJob?"),
        ("kind: CompressionJob\nspec: {seed: .inf}", "spec.seed: Invalid value: inf: a number must be finite"),
        ("a: 2026-11-23", "it reads as date"),
        ("x" * (1 << 20) + "x", "more than the 1048576"),
        (LAUGHS, "more than 100000 values"),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_named(text: str | bytes, said: str) -> None:
    assert said in problems(text)
