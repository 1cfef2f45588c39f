"""What layers inside a model give, caught as it runs, and which layer of a student goes with which of its teacher."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_jobs.modules.structure import run_watched
from kompress_jobs.samples import Inputs


class Taps:
    """The outputs of some modules, by name, of the latest forward pass; close it when it is no longer needed."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.found: dict[str, torch.Tensor] = {}
        self._hooks = [model.get_submodule(name).register_forward_hook(self._keep(name)) for name in dict.fromkeys(names)]

    def _keep(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            self.found[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def close(self) -> None:
        """Catch no more."""
        for hook in self._hooks:
            hook.remove()
        self.found.clear()


def resolve(model: nn.Module, glob: str, *, field: str) -> str:
    """The one module that a name or glob means. Raises MethodRefused where it means none or several."""
    names = [name for name, _ in model.named_modules() if name]
    matches = [glob] if glob in names else [name for name in names if fnmatchcase(name, glob)]
    if len(matches) != 1:
        shown = f"{len(matches)} modules ({', '.join(matches[:3])}, ...)" if matches else "no module"
        raise MethodRefused(f"{glob!r} matches {shown}", hint=f"name one, such as {names[len(names) // 2]}", field=field)
    return matches[0]


def blocks(model: nn.Module, sample: Inputs) -> list[str]:
    """The model's steps from input to output: the longest stack of modules of one class, such as a transformer's layers, or else the
    stages at whose ends an image gets smaller, (channels, height, width).
    """
    tokens = giving(model, sample, 3)
    stacks = []
    for name, module in model.named_modules():
        own = [f"{name}.{child}" if name else child for child, _ in module.named_children()]
        listed = isinstance(module, nn.ModuleList) or (isinstance(module, nn.Sequential) and tokens.keys() >= set(own))
        if listed and len({type(child) for child in module.children()}) == 1:
            stacks.append(own)
    longest = max(stacks, key=len, default=[])
    return longest if len(longest) > 1 else stages(model, sample)


def stages(model: nn.Module, sample: Inputs) -> list[str]:
    """Of each size that images have inside the model, the last outermost module that gives it."""
    last: dict[int, str] = {}
    for name, shape in giving(model, sample, 4).items():
        last[shape[-1]] = name
    return [name for side, name in last.items() if side > 1]


def giving(model: nn.Module, sample: Inputs, axes: int) -> dict[str, torch.Size]:
    """Shapes of what modules give, where it has so many axes, in the order in which they ended: an outer one comes after what it holds."""
    shapes: dict[str, torch.Size] = {}

    def look(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == axes:
                shapes[name] = output.shape

        return hook

    run_watched(model, sample, {name: look(name) for name, _ in model.named_modules() if name})
    return shapes


def paired(student: Sequence[str], teacher: Sequence[str], patience: str) -> list[tuple[str, str]]:
    """Every layer of the shorter with one of the longer: every k-th (Skip) or the last ones (Last).

    S. Sun et al., Patient Knowledge Distillation for BERT, 2019, https://arxiv.org/abs/1908.09355.
    """
    count = min(len(student), len(teacher))

    def choose(names: Sequence[str]) -> list[str]:
        if patience == "Last":
            return list(names[len(names) - count :])
        return [names[(index + 1) * len(names) // count - 1] for index in range(count)]

    return list(zip(choose(student), choose(teacher), strict=True)) if count else []


def aligned(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two features with equally many places: images are averaged down to the smaller, of tokens both must have the same number."""
    if student.ndim == 4 and student.shape[2:] != teacher.shape[2:]:
        size = [min(own, theirs) for own, theirs in zip(student.shape[2:], teacher.shape[2:], strict=True)]
        student, teacher = (nn.functional.adaptive_avg_pool2d(features, size) for features in (student, teacher))
    return student, teacher
