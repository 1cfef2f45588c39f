"""Weights from elsewhere: which of them fit a model, by name and shape, and what is to be said of the others.

A whole state dict must fit its architecture but for the head, whose size is the number of labels. In part, as for the backbone of
another architecture (J. Yosinski et al., 2014, https://arxiv.org/abs/1411.1792), weights are chosen by globs and renamed by the
beginning of their names; at least one must fit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from kompress_api.errors import ArtifactCorrupt, MethodRefused
from kompress_api.places import WeightSource
from kompress_jobs.modules.structure import is_within

NAMES_TOLD = 4
WRAPPERS = ("module.", "_orig_mod.")
"""What DDP and torch.compile put before every name."""
COUNTERS = "num_batches_tracked"
"""Of batch norms: files of other tools often leave them out."""

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Fit:
    """What becomes of some weights in a model."""

    taken: dict[str, torch.Tensor]
    """Under the model's names."""
    unlike: list[str]
    """Names that the model has for another shape, with both."""
    unknown: list[str]
    """Names that it does not have."""


def read(paths: Iterable[Path]) -> dict[str, torch.Tensor]:
    """The tensors of safetensors files; raises ArtifactCorrupt."""
    found: dict[str, torch.Tensor] = {}
    for path in paths:
        try:
            found |= load_file(path)
        except SafetensorError as error:
            raise ArtifactCorrupt(f"{path.name} is no safetensors file: {error}", hint="get the file anew") from error
    return dict(sorted(found.items()))


def fit(own: State, given: State) -> Fit:
    """Which of the given weights have the name and the shape of one of the model's own."""
    taken, unlike, unknown = {}, [], []
    for name, tensor in given.items():
        if name not in own:
            unknown.append(name)
        elif own[name].shape != tensor.shape or own[name].is_floating_point() != tensor.is_floating_point():
            unlike.append(f"{name} ({shape(tensor)}, here {shape(own[name])})")
        else:
            taken[name] = tensor
    return Fit(taken, unlike, unknown)


def whole(model: nn.Module, given: State, classes: int, shown: str, *, field: str) -> tuple[str, ...]:
    """Load a state dict into the architecture that it is said to belong to; returns the names of the head's weights, which stay fresh
    where the labels are others.

    Raises MethodRefused for anything else that is missing, too much or of another shape.
    """
    own = model.state_dict()
    found = fit(own, unwrapped(given))
    missing = [name for name in own if name not in found.taken and not name.endswith(COUNTERS)]
    heads = [name for name in missing if name in unwrapped(given) and is_head(own[name], unwrapped(given)[name], classes)]
    strange = [name for name in missing if name not in heads]
    if strange or found.unknown:
        lacks = f"lacks {few(strange)}" if strange else ""
        more = f"holds {few(found.unknown)}, which the model does not have" if found.unknown else ""
        raise MethodRefused(
            f"{shown} is no state dict of this architecture: it {' and '.join(filter(None, (lacks, more)))}",
            hint="name the architecture (and the arguments) that it was saved from; to take over a part of it, name it in weights instead",
            field=f"{field}.architecture",
        )
    model.load_state_dict(found.taken, strict=False)
    return tuple(sorted(heads))


def part(model: nn.Module, given: State, asked: WeightSource, *, field: str) -> tuple[frozenset[str], str]:
    """Load what was asked for of another model's weights; returns the names that are no longer fresh, and what people should know.

    Raises MethodRefused where nothing fits.
    """
    own = model.state_dict()
    chosen = {name: tensor for name, tensor in unwrapped(given).items() if is_asked_for(name, asked)}
    found = fit(own, {renamed(name, asked.rename): tensor for name, tensor in chosen.items()})
    if not found.taken:
        raise MethodRefused(
            nothing_fits(own, given, chosen, found, asked),
            hint="set include to the names of its weights, and rename to the beginnings that they have in this model",
            field=field,
        )
    model.load_state_dict(found.taken, strict=False)
    return frozenset(found.taken), told(own, given, chosen, found, asked)


def nothing_fits(own: State, given: State, chosen: State, found: Fit, asked: WeightSource) -> str:
    """Why no weight could be taken over."""
    if not chosen:
        return f"none of the {len(given)} weights of {asked.source} matches include and exclude: it holds {few(list(given))}"
    if found.unlike:
        return f"none of the {len(chosen)} weights of {asked.source} fits the model: of another shape are {few(found.unlike)}"
    names = f"they are {few(found.unknown)}, its own {few(list(own))}"
    return f"none of the {len(chosen)} weights of {asked.source} has a name of the model: {names}"


def told(own: State, given: State, chosen: State, found: Fit, asked: WeightSource) -> str:
    """How many were taken, skipped, and what the model has beyond them."""
    sentences = [f"{len(found.taken)} of the {len(given)} weights of {asked.source} were taken over"]
    if len(given) > len(chosen):
        sentences.append(f"{len(given) - len(chosen)} were not asked for")
    if found.unlike:
        sentences.append(f"{len(found.unlike)} of another shape were left out: {few(found.unlike)}")
    if found.unknown:
        sentences.append(f"{len(found.unknown)} have no place in the model: {few(found.unknown)}")
    rest = [name for name in own if name not in found.taken]
    if rest:
        sentences.append(f"{len(rest)} of the model's {len(own)} are not among them: {few(rest)}")
    return "; ".join(sentences)


def is_asked_for(name: str, asked: WeightSource) -> bool:
    """Whether include, and not exclude, matches."""
    return is_within(name, asked.include) and not is_within(name, asked.exclude)


def unwrapped(given: State) -> State:
    """Without a beginning that all names share because the model was wrapped when it was saved."""
    for prefix in WRAPPERS:
        if given and all(name.startswith(prefix) for name in given):
            return unwrapped({name.removeprefix(prefix): tensor for name, tensor in given.items()})
    return given


def renamed(name: str, beginnings: Mapping[str, str]) -> str:
    """The name with the longest of these beginnings exchanged."""
    for old in sorted(beginnings, key=len, reverse=True):
        if name.startswith(old):
            return beginnings[old] + name[len(old) :]
    return name


def is_head(own: torch.Tensor, given: torch.Tensor, classes: int) -> bool:
    """Whether the shapes differ in the number of outputs alone, and the model's is that of the labels."""
    return own.ndim > 0 and own.shape[0] == classes and own.shape[1:] == given.shape[1:]


def shape(tensor: torch.Tensor) -> str:
    """64x3x7x7; a number alone has none."""
    return "x".join(map(str, tensor.shape)) or "one number"


def few(names: Sequence[str]) -> str:
    """The first ones."""
    return ", ".join(names[:NAMES_TOLD]) + (", ..." if len(names) > NAMES_TOLD else "")
