"""Convolutions on a CPU compute with their channels last, or a training takes up to half as long again; whatever can't be computed so goes
on as before."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from kompress_jobs.context import StageContext
from kompress_jobs.modules import layout
from kompress_jobs.stages import fine_tune
from kompress_jobs.training import loop
from kompress_jobs.training.state import State

MakeContext = Callable[..., StageContext]


class Flat(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.view(len(images), -1)


def convolving(flat: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ConvTranspose2d(8, 4, 2)]
    return nn.Sequential(*layers, flat or nn.Flatten(), nn.Linear(196, 2)).eval()


def test_a_model_computes_the_same_and_lies_as_before_when_it_is_done() -> None:
    model, images = convolving(), torch.randn(2, 3, 8, 8)
    expected, weights = model(images).detach(), {name: weight.clone() for name, weight in model.state_dict().items()}
    own = dict(model.named_parameters())
    model[0].train()
    with torch.inference_mode(), layout.computing(model, (images,)):
        assert [module.training for module in model] == [True, *[False] * 6], "asking whether it works changes nothing"
        assert model[:4](images).is_contiguous(memory_format=torch.channels_last), "so does what comes out"
        with layout.computing(model, (images,)):
            pass
        assert layout.lies_so(model[0]), "whoever asks for it a second time does not end it"
        assert torch.allclose(model(images), expected, atol=1e-5)
    assert all(parameter is own[name] and parameter.is_contiguous() for name, parameter in model.named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    model(images).sum().backward()  # weights that were turned in inference mode could not learn any more


def test_a_model_that_looks_at_the_order_of_values_is_left_alone() -> None:
    """`view` refuses channels that are last; many a user's model has one."""
    model, images = convolving(Flat()), torch.randn(2, 3, 8, 8)
    with layout.computing(model, (images,)):
        assert model(images).shape == (2, 2)
        assert not layout.lies_so(model[0])


def test_a_stage_trains_that_way_and_hands_the_model_back_as_it_was(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    states: list[State] = []
    call = loop.Step.__call__

    def watched(self: loop.Step, micros: list[object]) -> None:
        call(self, micros)  # type: ignore[arg-type]
        states.append(self.state)
        found = [module for module in self.state.model.modules() if isinstance(module, nn.Conv2d)]
        moments = [value for module in found for value in self.state.optimizer.state[module.weight].values() if value.ndim == 4]
        seen.append(all(layout.lies_so(module) for module in found))
        seen.append(all(value.is_contiguous(memory_format=torch.channels_last) for value in moments))

    monkeypatch.setattr(loop.Step, "__call__", watched)
    fine_tune.run(make_context({"fineTune": {"epochs": 2, "batchSize": 32, "learningRate": 1e-2}}))
    assert seen
    assert all(seen), "a fused optimizer goes through weights and moments in the order in which they lie"
    assert all(parameter.is_contiguous() for parameter in states[-1].model.parameters())
