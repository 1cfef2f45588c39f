"""Convolutions on a CPU compute with their channels last, or a training takes up to half as long again; files hold them as everybody else
does."""

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from kompress_jobs.context import StageContext
from kompress_jobs.modules import layout
from kompress_jobs.stages import fine_tune
from kompress_jobs.training import loop

MakeContext = Callable[..., StageContext]


def convolving() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2), nn.Flatten(), nn.LazyLinear(2))


def test_a_model_computes_the_same_and_lies_as_before_when_it_is_done() -> None:
    model, images = convolving().eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = model(images)
    own, weights = dict(model.named_parameters()), {name: weight.clone() for name, weight in model.state_dict().items()}
    with layout.computing(model), torch.inference_mode():
        assert model[0](images).is_contiguous(memory_format=torch.channels_last), "so does what comes out"
        assert torch.allclose(model(images), before, atol=1e-5)
        with layout.computing(model):
            pass
        assert layout.lies_so(model[0]), "whoever asks for it a second time does not end it"
    assert all(parameter is own[name] and parameter.is_contiguous() for name, parameter in model.named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    model(images).sum().backward()  # weights that were turned in inference mode could not learn any more


def test_a_stage_trains_that_way_and_writes_what_others_read(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    call = loop.Step.__call__

    def watched(self: loop.Step, micros: list[object]) -> None:
        found = [module for module in self.state.model.modules() if isinstance(module, nn.Conv2d)]
        states = [self.state.optimizer.state[module.weight] for module in found]
        seen.append(all(layout.lies_so(module) for module in found))
        moments = [value for state in states for value in state.values() if value.ndim == 4]
        seen.append(all(value.is_contiguous(memory_format=torch.channels_last) for value in moments))
        call(self, micros)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.Step, "__call__", watched)
    output = fine_tune.run(make_context({"fineTune": {"epochs": 2, "batchSize": 32, "learningRate": 1e-2}}))
    assert seen
    assert all(seen), "a fused optimizer goes through weights and moments in the order in which they lie"
    assert sum(weight.ndim == 4 for weight in load_file(output.folder / "model.safetensors").values()) > 1
