"""Formulas of fusing, each against its paper's by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kompress_api.errors import MethodRefused
from kompress_api.stages.fuse import Fuse
from kompress_jobs import registry
from kompress_jobs.fusions import Fused, Material, Tensors, dare, slerp, ties

BASE = {"w": torch.tensor([1.0, 1.0, 1.0, 1.0]), "count": torch.tensor(7)}
FIRST = {"w": torch.tensor([2.0, 0.0, 1.0, 1.2]), "count": torch.tensor(7)}
SECOND = {"w": torch.tensor([4.0, 4.0, 1.0, 0.9]), "count": torch.tensor(9)}


def fuse(
    method: str, models: list[Tensors], base: Tensors | None = None, score: Callable[[Tensors], float] | None = None, **spec: Any
) -> Fused:
    weights = spec.pop("weights", [1.0] * len(models))
    entries = [{"from": f"stage{index}", "weight": weight} for index, weight in enumerate(weights)]
    parsed = Fuse.model_validate({"method": method, "models": entries, **({"base": "source"} if base else {}), **spec})
    module = registry.load("fusions", parsed.method, field="f")
    module.refuse(parsed, field="f")
    found: Fused = module.fuse(Material(models, base, parsed, score or (lambda _: 0.0), seed=0))
    return found


def test_a_uniform_soup_is_the_mean_and_counters_are_the_first_model_s() -> None:
    soup = fuse("UniformSoup", [FIRST, SECOND]).state
    assert soup["w"].tolist() == pytest.approx([3.0, 2.0, 1.0, 1.05])
    assert int(soup["count"]) == 7


def test_linear_weights_are_normalised() -> None:
    assert fuse("Linear", [FIRST, SECOND], weights=[3.0, 1.0]).state["w"].tolist() == pytest.approx([2.5, 1.0, 1.0, 1.125])


def test_slerp_keeps_the_length_between_orthogonal_tensors_and_ends_at_its_ends() -> None:
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    assert float(slerp.slerp(a, b, 0.5).norm()) == pytest.approx(2.0)
    assert slerp.slerp(a, b, 0.0).tolist() == pytest.approx([2.0, 0.0])
    assert slerp.slerp(a, b, 1.0).tolist() == pytest.approx([0.0, 2.0])
    assert slerp.slerp(a, 3 * a, 0.5).tolist() == pytest.approx([4.0, 0.0]), "parallel: linear"


def test_task_arithmetic_adds_what_was_learned_and_a_negative_weight_takes_it_away() -> None:
    added = fuse("TaskArithmetic", [FIRST, SECOND], BASE, weights=[1.0, -1.0], scaling=0.5).state["w"]
    assert added.tolist() == pytest.approx([0.0, -1.0, 1.0, 1.15])


def test_ties_trims_elects_and_averages_those_that_agree() -> None:
    """By hand: half of each vector is kept; at position 1 the signs differ and the larger sum wins."""
    vectors = torch.stack([FIRST["w"] - BASE["w"], SECOND["w"] - BASE["w"]])  # [1, -1, 0, .2] and [3, 3, 0, -.1]
    merged = ties.merge(vectors.double(), [1.0, 1.0], density=0.5)
    assert merged.tolist() == pytest.approx([2.0, 3.0, 0.0, 0.0])
    assert fuse("TIES", [FIRST, SECOND], BASE, density=0.5).state["w"].tolist() == pytest.approx([3.0, 4.0, 1.0, 1.0])


def test_dare_drops_and_rescales_so_that_the_mean_stays_and_a_seed_repeats_itself() -> None:
    vector = torch.ones(20_000, dtype=torch.float64)
    kept = dare.dropped(vector, 0.25, torch.Generator().manual_seed(0))
    assert set(kept.unique().tolist()) == {0.0, 4.0}
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.05)
    once, again = (fuse("DARE", [FIRST, SECOND], BASE, density=0.5).state["w"] for _ in range(2))
    assert torch.equal(once, again)


def test_a_greedy_soup_takes_what_helps_and_leaves_what_hurts() -> None:
    """The good ones lie around 1; the third would pull the mean away."""
    models = [{"w": torch.tensor([value])} for value in (0.8, 1.2, 5.0)]
    cooked = fuse("GreedySoup", models, score=lambda state: 1 - abs(float(state["w"]) - 1))
    assert float(cooked.state["w"]) == pytest.approx(1.0)
    assert cooked.details["ingredients"] == ["stage0", "stage1"]


@pytest.mark.parametrize("method", ["TaskArithmetic", "TIES", "DARE"])
def test_task_vectors_without_a_base_are_refused(method: str) -> None:
    with pytest.raises(MethodRefused) as caught:
        fuse(method, [FIRST, SECOND])
    assert caught.value.field == "f.base"


@pytest.mark.parametrize(
    ("method", "weights", "field"),
    [
        ("UniformSoup", [1.0, 2.0], "f.models[1].weight"),
        ("GreedySoup", [2.0, 1.0], "f.models[0].weight"),
        ("Linear", [1.0, -1.0], "f.models"),
        ("SLERP", [1.0, 1.0, 1.0], "f.models"),
    ],
)
def test_what_would_be_ignored_or_has_no_meaning_is_refused(method: str, weights: list[float], field: str) -> None:
    with pytest.raises(MethodRefused) as caught:
        fuse(method, [FIRST] * len(weights), weights=weights)
    assert caught.value.field == field
