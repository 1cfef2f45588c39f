"""Full: every weight learns, except those of `frozenModules`."""

from fnmatch import fnmatchcase

from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.stages.fine_tune import FineTune


def prepare(model: nn.Module, settings: FineTune, head: str, *, field: str) -> None:
    """Set `requires_grad`; `head` is the name of the layer that gives the outputs."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not is_frozen(name, settings.frozen_modules))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise MethodRefused(
            f"frozenModules {settings.frozen_modules} leave nothing that learns", hint="name fewer modules", field=f"{field}.frozenModules"
        )


def is_frozen(name: str, globs: list[str]) -> bool:
    """Whether a glob matches the parameter or a module that holds it."""
    parts = name.split(".")
    paths = [".".join(parts[: length + 1]) for length in range(len(parts))]
    return any(fnmatchcase(path, glob) for path in paths for glob in globs)
