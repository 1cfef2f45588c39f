"""Pruning: smaller by what was asked, the same again from its history."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.stages.prune import Prune
from kompress_jobs import bundle, structure
from kompress_jobs.context import StageOutput
from kompress_jobs.granularities import channel
from kompress_jobs.importances import l1, taylor
from kompress_jobs.measure import size
from kompress_jobs.samples import Inputs
from kompress_jobs.stages.prune import share_epochs

RunStage = Callable[..., StageOutput]


def build(name: str) -> tuple[nn.Module, Inputs]:
    from torchvision import models

    torch.manual_seed(0)
    return models.get_model(name, weights=None, num_classes=10).eval(), (torch.randn(2, 3, 64, 64),)


def pruner(model: nn.Module, sample: Inputs, **spec: Any) -> channel.Pruner:
    parsed = Prune.model_validate({"pruningRatio": 0.5, "importance": "L1"} | spec)
    return channel.Pruner(model, sample, l1.build(), parsed, structure.head_of(model, sample), field="spec.stages[0].prune")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_history_makes_the_same_model_again(name: str) -> None:
    model, sample = build(name)
    pruned = pruner(model, sample)
    pruned.step()
    again = structure.replay(build(name)[0], json.loads(json.dumps([pruned.change()])), sample)
    again.load_state_dict(model.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(again.eval()(*sample), model.eval()(*sample))
    assert size.parameters(model) < 0.6 * size.parameters(build(name)[0])


def test_local_scope_cuts_every_layer_alike_and_rounds() -> None:
    model, sample = build("resnet18")
    pruned = pruner(model, sample, scope="Local")
    pruned.step()
    assert set(map(tuple, pruned.removed().values())) == {(64, 32), (128, 64), (256, 128), (512, 256)}
    assert model.fc.out_features == 10
    rounded, sample = build("resnet18")
    cut = pruner(rounded, sample, scope="Local", pruningRatio=0.3, roundTo=16)
    cut.step()
    assert all(now % 16 == 0 for _, now in cut.removed().values())


@pytest.mark.parametrize("scope", ["Local", "Global", "Isomorphic"])
def test_no_layer_loses_more_than_it_may(scope: str) -> None:
    model, sample = build("resnet18")
    with torch.no_grad():
        for parameter in model.layer1.parameters():
            parameter.mul_(1e-6)
    pruned = pruner(model, sample, scope=scope, pruningRatio=0.6, maxPruningRatio=0.7, roundTo=1)
    pruned.step()
    assert max(1 - now / before for before, now in pruned.removed().values()) <= 0.71


def test_taylor_keeps_what_the_loss_depends_on() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
    sample = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        model[4].weight[:, 8:] = 0  # what these channels say changes nothing
    model(sample).logsumexp(1).sum().backward()
    spec = Prune.model_validate({"pruningRatio": 0.5, "roundTo": 1})
    pruned = channel.Pruner(model, (sample,), taylor.build(), spec, "4", field="f")
    pruned.step()
    assert pruned.change()["steps"] == [["0", True, list(range(8, 16))]]


def test_ignored_modules_and_the_head_are_left_alone() -> None:
    model, sample = build("resnet18")
    pruned = pruner(model, sample, scope="Local", ignore=["layer4.*"])
    pruned.step()
    assert model.layer4[0].conv1.out_channels == 512
    assert model.layer3[0].conv1.out_channels == 128


def test_what_can_not_be_cut_is_refused_by_field() -> None:
    model, sample = nn.Sequential(nn.Flatten(), nn.MultiheadAttention(8, 2)), (torch.zeros(1, 8),)
    with pytest.raises(MethodRefused, match="attention") as caught:
        channel.refuse_attention(model, field="spec.stages[0].prune")
    assert caught.value.field == "spec.stages[0].prune.granularity"
    with pytest.raises(MethodRefused, match="can't be traced"):
        pruner(*build("shufflenet_v2_x0_5"))  # it cuts and swaps halves of its channels
    model, sample = build("resnet18")
    pruned = pruner(model, sample, roundTo=512)
    pruned.step()
    with pytest.raises(MethodRefused, match="no channel was removed") as caught:
        pruned.removed()
    assert caught.value.field.endswith("pruningRatio")


def test_schedules_end_at_the_ratio() -> None:
    assert channel.linear(0.5, 4) == [0, 0.125, 0.25, 0.375, 0.5]
    assert channel.cubic(0.5, 2) == [0, 0.4375, 0.5]


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"), [(6, 1, [6]), (6, 3, [2, 1, 3]), (5, 4, [1, 1, 0, 3]), (1, 2, [0, 1]), (0, 2, [0, 0])]
)
def test_the_last_step_gets_at_least_half_of_the_epochs(epochs: int, steps: int, expected: list[int]) -> None:
    assert share_epochs(epochs, steps) == expected


def test_the_stage_prunes_in_steps_and_writes_what_a_clean_process_can_read(run_stage: RunStage) -> None:
    recovery = {"epochs": 6, "learningRate": 1e-2, "batchSize": 32}
    output = run_stage(
        {"prune": {"pruningRatio": 0.5, "iterativeSteps": 2, "roundTo": 4, "scope": "Local", "importance": "Taylor", "recovery": recovery}}
    )
    assert output.folder is not None
    found = bundle.read(output.folder)
    assert [change["change"] for change in found.description.history] == ["channel"]
    assert output.details["channels"] == {"first": [16, 8], "second": [32, 16]}
    assert output.metrics["parameters"] == size.parameters(found.model) < 0.4 * output.metrics["source.parameters"]
    assert output.metrics["macs"] < 0.4 * output.metrics["source.macs"]
    assert output.metrics["accuracy"] > 0.5
    low, high = output.details["intervals"]["accuracy"]
    assert low < output.metrics["accuracy"] < high
