"""Full: every weight learns, except those of `frozenModules`."""

from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.stages.fine_tune import FineTune
from kompress_jobs.structure import is_within


def prepare(model: nn.Module, settings: FineTune, head: str, *, field: str) -> None:
    """Set `requires_grad`; `head` is the name of the layer that gives the outputs."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not is_within(name, settings.frozen_modules))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise MethodRefused(
            f"frozenModules {settings.frozen_modules} leave nothing that learns", hint="name fewer modules", field=f"{field}.frozenModules"
        )
