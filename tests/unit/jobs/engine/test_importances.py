"""Every importance with every granularity: it works, or the preflight says why not. What it says is what its paper says."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.job import CompressionJobSpec
from kompress_api.stages.prune import Granularity, Importance, Prune
from kompress_jobs import registry
from kompress_jobs.gang import Gang
from kompress_jobs.importances import Evidence, Part, bn_scale, fpgm, hessian, l1, l2, lamp, movement, taylor
from kompress_jobs.pruning import coupled
from kompress_jobs.pruning.calibration import Calibration
from kompress_jobs.pruning.recovery import Methods, ranks
from kompress_jobs.rehearsal.rehearse import rehearse
from kompress_jobs.samples.splits import Data
from kompress_jobs.training.batches import Batch

MODELS = {
    Granularity.WEIGHT: "convolutional",
    Granularity.NM: "convolutional",
    Granularity.CHANNEL: "residual",
    Granularity.HEAD: "vit",
    Granularity.LAYER: "residual",
}
SHARES: dict[str, dict[str, Any]] = {"Weight": {"sparsity": 0.5}, "NM": {"pattern": "2:4"}}
WORKS = {
    "weights": {"L1", "L2", "LAMP", "Taylor", "Hessian", "Random", "Movement"},
    "units": {"L1", "L2", "LAMP", "Taylor", "Hessian", "Random", "Movement", "BNScale", "FPGM"},
    "block": {"L1", "L2", "Taylor", "Hessian", "Random", "Movement", "Loss"},
}


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("importance", Importance)
def test_every_pair_is_rehearsed_or_refused_by_the_field_of_the_importance(
    granularity: Granularity, importance: Importance, digits: Data, tmp_path: Path
) -> None:
    own = {"granularity": granularity, "importance": importance, "roundTo": 1} | SHARES.get(granularity, {"pruningRatio": 0.5})
    spec = CompressionJobSpec.model_validate(
        {
            "task": "image-classification",
            "model": {"source": f"python://tiny_models:{MODELS[granularity]}"},
            "dataset": {"source": "builtin://digits"},
            "stages": [{"name": "slim", "prune": own}],
        }
    )
    module = registry.load("granularities", granularity, field="f")
    works = importance in WORKS[module.RANKS[0]] and (granularity, importance) != ("Head", "BNScale")
    if works:
        found = rehearse(spec, digits, tmp_path)
        assert found["slim"].parameters <= found["source"].parameters
        return
    with pytest.raises(MethodRefused) as caught:
        rehearse(spec, digits, tmp_path)
    assert caught.value.field in ("spec.stages[0].prune.importance", "spec.stages[0].prune.granularity")
    assert caught.value.hint and importance in caught.value.message


@pytest.mark.parametrize("name", Importance)
def test_every_importance_ranks_something_in_the_shapes_of_the_contract(name: Importance) -> None:
    module = registry.load("importances", name, field="f")
    assert module.EVIDENCE in Evidence
    weight = torch.randn(6, 4)
    part = Part(nn.BatchNorm1d(6) if name is Importance.BN_SCALE else nn.Linear(4, 6), weight, torch.randn(6, 4))
    found = [getattr(module, function, None) for function in ("weights", "units", "block", "without")]
    weights, units, block, without = found
    assert any(found)
    assert weights is None or weights(weight, part.evidence).shape == weight.shape
    assert units is None or units([part, part]).shape == (6,)
    assert block is None or isinstance(block([part]), float)
    assert without is None or without(1.5) > without(0.5), "the more the model loses without a layer, the more it is worth"


@pytest.mark.parametrize(("own", "theirs"), [(l1, {"p": 1}), (l2, {"p": 2}), (taylor, None)])
def test_channels_are_worth_what_torch_pruning_says(own: ModuleType, theirs: Any) -> None:
    from torch_pruning.pruner import importance

    torch.manual_seed(0)
    model, sample = (
        nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(96, 4)),
        torch.randn(2, 1, 8, 8),
    )
    model(sample).logsumexp(1).sum().backward()
    graph = coupled.build_graph(model, (sample,), field="f")
    reference = importance.GroupMagnitudeImportance(**theirs) if theirs else importance.GroupTaylorImportance()
    found = list(coupled.groups(graph, [model[4]]))
    assert len(found) == 2
    for group in found:
        expected = reference(group)
        assert torch.allclose(own.units(coupled.parts(graph, group)), expected / expected.mean(), rtol=1e-4)


def test_rows_go_to_their_channel_in_whatever_order_they_stand() -> None:
    rows = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    assert coupled.by_unit(rows, [1, 0, 1, 0, 2], 3).tolist() == [[2, 4], [1, 3], [5, 0]]


def test_lamp_takes_the_same_share_of_what_is_left_from_layers_of_any_scale() -> None:
    small, large = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([100.0, 200.0, 300.0])
    assert torch.allclose(lamp.weights(small, small), torch.tensor([1 / 14, 4 / 13, 1.0]))
    assert torch.allclose(lamp.weights(small, small), lamp.weights(large, large))


def test_movement_lets_go_of_what_the_loss_shrinks_and_keeps_a_small_weight_that_grows() -> None:
    weight, gradient = torch.tensor([1.0, 0.1]), torch.tensor([1.0, -1.0])
    assert movement.weights(weight, gradient).argmin() == 0
    assert l1.weights(weight, gradient).argmin() == 1


def test_batch_norm_scales_rank_channels_and_say_nothing_of_others() -> None:
    norm = Part(nn.BatchNorm2d(3), torch.tensor([[0.1], [-3.0], [1.0]]), torch.zeros(3, 1))
    plain = Part(nn.Conv2d(1, 3, 1), torch.ones(3, 1), torch.zeros(3, 1))
    assert bn_scale.units([plain, norm]).argsort().tolist() == [0, 2, 1]
    assert bn_scale.units([plain]) is None


def test_the_filter_in_the_middle_can_be_spoken_for_by_the_others() -> None:
    filters = Part(nn.Conv2d(1, 3, 1), torch.tensor([[5.0, 5.0], [0.1, 0.0], [-5.0, -5.0]]), torch.zeros(3, 2))
    norm = Part(nn.BatchNorm2d(3), torch.tensor([[0.0], [9.0], [0.0]]), torch.zeros(3, 1))
    assert fpgm.units([filters, norm]).argmin() == 1
    assert fpgm.units([norm]) is None


def test_hessian_is_the_mean_of_the_squares_of_single_samples() -> None:
    model = nn.Linear(2, 1, bias=False)
    samples, targets = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]]), torch.zeros(3)
    batch = Batch(samples, targets, torch.arange(3), 1.0)
    Calibration(lambda: [batch], lambda net, b: net(b.samples).mean(), Gang(0, 1, torch.device("cpu"))).collect(model, hessian.EVIDENCE)
    assert torch.allclose(model.weight.grad, torch.tensor([[2 / 3, 4 / 3]])), "a batch's own gradient would have said 0 of the first"


def test_a_refusal_names_the_importances_that_would_do() -> None:
    with pytest.raises(MethodRefused) as caught:
        Methods.of(Prune.model_validate({"granularity": "Weight", "sparsity": 0.5, "importance": "FPGM"}), field="f")
    assert caught.value.field == "f.importance"
    granularity = registry.load("granularities", Granularity.WEIGHT, field="f")
    assert caught.value.hint == f"use {', '.join(i for i in Importance if ranks(registry.load('importances', i, field='f'), granularity))}"
    assert "FPGM" not in caught.value.hint
