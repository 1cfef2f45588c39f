"""FeatureExtraction: the head alone learns; the rest rests, running statistics and dropout included."""

from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.stages.fine_tune import FineTune
from kompress_jobs.structure import is_within


def prepare(model: nn.Module, settings: FineTune, head: str, *, field: str) -> None:
    """Set `requires_grad`; `head` is the name of the layer that gives the outputs."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_((name == head or name.startswith(f"{head}.")) and not is_within(name, settings.frozen_modules))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise MethodRefused(f"the head {head} is among frozenModules", hint="leave it out", field=f"{field}.frozenModules")
