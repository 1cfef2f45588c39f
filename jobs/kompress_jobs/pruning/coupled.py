"""Channels that can only go together, as Torch-Pruning's dependency graph finds them, in the words of an importance."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_jobs.importances import Part
from kompress_jobs.samples import Inputs

Group = Any
"""torch_pruning.Group: (dependency, indices) of every layer that loses something."""
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)


def build_graph(model: nn.Module, sample: Inputs, *, field: str) -> Any:
    """Trace a model; raises MethodRefused where that fails."""
    import torch_pruning

    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # parameters that belong to no layer: their dimension is guessed, and checked by a rebuild
            return torch_pruning.DependencyGraph().build_dependency(model.eval(), sample, verbose=False)
    except Exception as error:
        raise MethodRefused(
            f"the couplings between the model's channels can't be traced: {error}",
            hint="use another model, or write its forward pass with tensor operations that autograd sees",
            field=field,
        ) from error


def groups(graph: Any, ignored: Sequence[nn.Module]) -> Iterator[Group]:
    """All groups of which no layer is to be left alone, each with all of its channels."""
    yield from graph.get_all_groups(ignored_layers=list(ignored), root_module_types=(nn.modules.conv._ConvNd, nn.Linear))


def copies(graph: Any, group: Group) -> int:
    """How many equal groups the channels stand in (grouped convolution, group norm): a channel goes from each of them at once."""
    found = [1]
    for dep, _ in group:
        module = dep.target.module
        pruner = graph.get_pruner_of_module(module) if isinstance(module, nn.Module) else None
        if pruner is None or (isinstance(module, nn.modules.conv._ConvNd) and module.groups == module.out_channels):
            continue
        outward = graph.is_out_channel_pruning_fn(dep.handler)
        found.append(pruner.get_out_channel_groups(module) if outward else pruner.get_in_channel_groups(module))
    return max(found)


def parts(graph: Any, group: Group) -> list[Part]:
    """The weights that go with each channel of a group's first layer."""
    import torch_pruning

    depthwise = torch_pruning.prune_depthwise_conv_out_channels
    channels = len(group[0].idxs)
    found = []
    for item in group:
        layer, handler = item.dep.target.module, item.dep.handler
        weight = getattr(layer, "weight", None)
        if weight is None or handler is depthwise or any(root is None for root in item.root_idxs):
            continue
        if isinstance(layer, NORMS):
            turn = _column
        elif not isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
            continue
        elif graph.is_out_channel_pruning_fn(handler) != getattr(layer, "transposed", False):
            turn = _rows
        else:
            turn = _columns
        evidence = torch.zeros_like(weight) if weight.grad is None else weight.grad
        values = [turn(layer, tensor.detach())[item.idxs] for tensor in (weight, evidence)]
        found.append(Part(layer, *(by_unit(rows, item.root_idxs, channels) for rows in values)))
    return found


def _rows(layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    return weight.flatten(1)


def _columns(layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    rows = weight.transpose(0, 1).flatten(1)
    groups = getattr(layer, "groups", 1)
    return rows.repeat(groups, 1) if groups not in (1, getattr(layer, "in_channels", 1)) else rows


def _column(layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    return weight.flatten()[:, None]


def by_unit(rows: torch.Tensor, units: Sequence[int], channels: int) -> torch.Tensor:
    """(rows, n) -> (channels, all that goes with one): a channel may be several rows (flattened images), or none, which counts as zero."""
    unit = torch.tensor(units, device=rows.device)
    order = unit.argsort(stable=True)
    counts = unit.bincount(minlength=channels)
    place = torch.arange(len(unit), device=rows.device) - (counts.cumsum(0) - counts)[unit[order]]
    found = rows.new_zeros(channels, int(counts.max()), rows.shape[1])
    found[unit[order], place] = rows[order]
    return found.flatten(1)
