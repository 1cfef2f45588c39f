"""The layers of a model: which is its head, what runs when, and how one is put in the place of another."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_jobs.samples import Inputs

Change = dict[str, Any]


def head_of(model: nn.Module, sample: Inputs) -> str:
    """Name of the layer that gives the outputs: the last Linear or convolution that runs in a forward pass.

    Raises MethodRefused when there is none.
    """
    ran: list[str] = []
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)]
    run_watched(model, sample, {name: lambda *_, name=name: ran.append(name) for name in layers})  # type: ignore[misc]
    if not ran:
        raise MethodRefused("the model has no Linear, Conv1d or Conv2d layer that could be its head", hint="use a model with one")
    return ran[-1]


def heads_of(model: nn.Module, sample: Inputs) -> list[str]:
    """`head_of`, and the auxiliary heads beside it (Inception, GoogLeNet): linear layers with as many outputs that run in training only."""
    ran: set[str] = set()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    run_watched(model, sample, {name: lambda *_, name=name: ran.add(name) for name in layers})  # type: ignore[misc]
    head = head_of(model, sample)
    outputs = layers[head].out_features if head in layers else None
    return [head, *(name for name, module in layers.items() if name not in ran and module.out_features == outputs)]


def run_watched(model: nn.Module, sample: Inputs, hooks: Mapping[str, Callable[..., object]]) -> None:
    """One forward pass in evaluation mode; the modules of these names call theirs as forward hooks: (module, given, gave)."""
    handles = [model.get_submodule(name).register_forward_hook(hook) for name, hook in hooks.items()]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(*sample)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)


def with_head(model: nn.Module, name: str, outputs: int) -> nn.Module:
    """Put a fresh layer with `outputs` outputs in the place of layer `name`."""
    old = model.get_submodule(name)
    new: nn.Module
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, outputs, bias=old.bias is not None)
    elif isinstance(old, nn.Conv1d | nn.Conv2d):
        new = type(old)(old.in_channels, outputs, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)  # type: ignore[arg-type]
    else:
        raise MethodRefused(f"the head {name} is a {type(old).__name__}, not a Linear, Conv1d or Conv2d", hint="use head: Keep")
    if not name:
        return new
    put(model, name, new)
    return model


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Another module in the place of the one of that name."""
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, module)


def is_within(name: str, globs: Sequence[str]) -> bool:
    """Whether a glob matches the module or parameter, or a module that holds it."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[: length + 1]), glob) for length in range(len(parts)) for glob in globs)
