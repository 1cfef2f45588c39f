"""How deep inside a model each weight lies, for what treats layers by their depth: layer-wise decay, gradual unfreezing, recomputation.

Libraries don't say. What they have in common is that a model is a stack of blocks (a transformer's layers, a ResNet's), each of several
layers, kept in containers. Which comes first is found out by running the model once.
"""

from collections.abc import Sequence

from torch import nn

from kompress_jobs.modules.structure import run_watched
from kompress_jobs.samples import Inputs

CONTAINERS = nn.Sequential | nn.ModuleList | nn.ModuleDict


def blocks(model: nn.Module) -> list[str]:
    """Names of the blocks that the model is a stack of, as they are defined; none where layers stand alone (VGG)."""
    found: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, CONTAINERS) and not is_inside(name, found) and is_stack(module):
            children = [(f"{name}.{child}".lstrip("."), part) for child, part in module.named_children() if layers(part)]
            found += [child for child, part in children if not (isinstance(part, CONTAINERS) and is_stack(part))]
    return found


def is_stack(module: nn.Module) -> bool:
    """Whether all that it holds is made of several layers each."""
    sizes = [len(layers(child)) for child in module.children()]
    return any(sizes) and all(size != 1 for size in sizes)


def layers(module: nn.Module) -> list[str]:
    """Names of the modules that have parameters of their own."""
    return [name for name, part in module.named_modules() if any(True for _ in part.parameters(recurse=False))]


def depths(model: nn.Module, sample: Inputs) -> dict[str, int]:
    """Parameter -> level, 0 for what the input meets first; above the last block lies the head, with what runs after that block.

    Without blocks each layer is a level of its own, its norm included.
    """
    ran: list[str] = []
    run_watched(model, sample, {name: lambda *_, name=name: ran.append(name) for name in layers(model)})  # type: ignore[misc]
    stack = blocks(model)
    level_of = levels_of_blocks(ran, stack) if stack else levels_of_layers(model, ran)
    top = max(level_of.values(), default=0)
    found = {}
    for name, _ in model.named_parameters():
        owner = name.rpartition(".")[0]
        block = next((block for block in stack if is_inside(name, [block])), None)
        if any(is_inside(block, [owner]) for block in stack):
            found[name] = 0  # of the whole, such as the embedding of positions
        else:  # what did not run by itself is as deep as its block, or else an auxiliary head
            found[name] = level_of.get(owner, level_of.get(block, top) if block else top)
    return found


def levels_of_blocks(ran: Sequence[str], stack: Sequence[str]) -> dict[str, int]:
    """Level of each block, and of each layer that ran: 0 before the first block, that of its block, or of the block before it."""
    found: dict[str, int] = {}
    begun, last = 0, 0
    for place, layer in enumerate(ran):
        block = next((block for block in stack if is_inside(layer, [block])), None)
        if block is not None:
            if block not in found:
                begun += 1
                found[block] = begun
            last = place
        found.setdefault(layer, found[block] if block is not None else begun)
    return found | dict.fromkeys((layer for layer in ran[last + 1 :] if not is_inside(layer, stack)), begun + 1)


def levels_of_layers(model: nn.Module, ran: Sequence[str]) -> dict[str, int]:
    """Level of each layer that ran: one more with each that has a matrix."""
    found: dict[str, int] = {}
    level = -1
    for layer in ran:
        level += any(parameter.ndim > 1 for parameter in model.get_submodule(layer).parameters(recurse=False))
        found.setdefault(layer, max(level, 0))
    return found


def is_inside(name: str, modules: Sequence[str]) -> bool:
    """Whether a module or parameter is one of these modules or lies in one; the whole model is the module without a name."""
    return any(not module or name == module or name.startswith(f"{module}.") for module in modules)


def plain(name: str) -> str:
    """Name of the parameter that this one computes, where a parametrization has taken its place."""
    module, _, inner = name.partition(".parametrizations.")
    return f"{module}.{inner.partition('.')[0]}" if inner else name


def scales(depth: dict[str, int], decay: float) -> dict[str, float]:
    """Parameter -> factor of the learning rate, less by `decay` with every level down (J. Howard, S. Ruder, 2018, section 3.2,
    https://arxiv.org/abs/1801.06146; per block as K. Clark et al., 2020, https://arxiv.org/abs/2003.10555)."""
    top = max(depth.values(), default=0)
    return {name: decay ** (top - level) for name, level in depth.items()}
