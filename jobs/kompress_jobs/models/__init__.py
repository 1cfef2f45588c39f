"""Where models come from: the scheme of a source URI is the module that knows it.

A library's module (torchvision, timm, python) has `construct(name, arguments, num_classes, task, field) -> nn.Module` and
`pretrained(name, arguments, task, field) -> Pretrained`. It may have `settled(name, arguments, task, field) -> arguments`, where
the name alone would not build the same model elsewhere, `preprocessing(name, arguments, model, data, task, field)`, where
models come with their own (None: the task decides), and `stands_for(name, field)`, where the library's version does not say
what lies behind the name. A place's module (s3, file, mlflow) has `fetch(source, scratch, role, field) -> folder of a bundle` and
`fetch_weights(source, scratch, role, field) -> safetensors files`; `located(source, role, patience, field)` where neither commit nor
listing says what lies there. What is done to a model afterwards is written down in its bundle (`rebuild`).
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from kompress_api.errors import UnknownModel
from kompress_jobs import registry
from kompress_jobs.description import Description
from kompress_jobs.modules import history

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]


@dataclass(frozen=True)
class Pretrained:
    """A library's weights, and the preprocessing that they were made with."""

    state: Mapping[str, torch.Tensor] = field(default_factory=dict)
    mean: list[float] = field(default_factory=lambda: IMAGENET_MEAN)
    std: list[float] = field(default_factory=lambda: IMAGENET_STD)


def split(source: str) -> tuple[str, str]:
    """`timm://resnet18` -> (`timm`, `resnet18`)."""
    scheme, _, name = source.partition("://")
    return scheme, name


def construct(source: str, arguments: Mapping[str, Any], num_classes: int, task: str, *, field: str) -> nn.Module:
    """Build an architecture with fresh weights from a library's scheme.

    Raises UnknownModel (with near matches), InvalidManifest (arguments), FactoryNotAllowed, UnknownMethod (scheme).
    """
    scheme, name = split(source)
    library = registry.load("models", scheme, field=f"{field}.source")
    model: nn.Module = library.construct(name, arguments, num_classes, task, field=field)
    return model


def unknown(source: str, known: Iterable[str], *, field: str) -> UnknownModel:
    """The error for a name that a library does not have."""
    scheme, name = split(source)
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(f'{scheme}://{entry}' for entry in near)}?" if near else f"list them with {scheme}'s list_models()"
    return UnknownModel(f"{scheme} has no model {name!r}", hint=hint, field=f"{field}.source")


def rebuild(description: Description) -> nn.Module:
    """The model of a description with fresh weights: built by its factory, its history replayed."""
    architecture = description.architecture
    model = construct(
        architecture.source, architecture.arguments, architecture.num_classes, description.task, field="bundle.json: architecture"
    )
    return history.replay(model, description.history, description.preprocessing.sample())
