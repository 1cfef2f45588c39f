"""What a model is and how it is made again, as a bundle's `bundle.json` says it."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from kompress_api.base import Model
from kompress_jobs.preprocessing import AnyPreprocessing
from kompress_jobs.samples import Inputs, place

DESCRIPTION = "bundle.json"
WEIGHTS = "model.safetensors"


class Architecture(Model):
    """How the untouched model is made; the number of classes is that of the description's labels."""

    source: str
    """torchvision://, timm://, hf:// or python://."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the constructor."""
    num_classes: int
    """Outputs that the constructor was asked for (later changes of the head are in the history)."""


class Input(Model):
    """One input of the model, for whoever calls it from elsewhere."""

    name: str
    """As in an exported graph."""
    shape: list[int]
    """-1: any length, the batch first."""
    dtype: str
    """As numpy calls it."""


class Description(Model):
    """bundle.json."""

    version: Literal[1] = 1
    """Of this format."""
    task: str
    """spec.task."""
    architecture: Architecture
    """How the untouched model is made."""
    labels: list[str]
    """Class names, in the order of the outputs."""
    multi_label: bool = False
    """Each score is a yes (above 0) or no of its own; else the largest score names the one label."""
    ctc: bool = False
    """Scores are those of frames, and labels are characters: the best of each frame, repeats once, label 0 left out, spell what was
    said, in lower case with one space between words."""
    preprocessing: AnyPreprocessing
    """What is done to a sample before the model sees it."""
    inputs: list[Input] = []
    """What the model is called with, filled in when it is written."""
    history: list[dict[str, Any]] = []
    """Structural changes in order; each is {"change": name, ...}, see `modules/history.py`."""
    quantization: dict[str, Any] | None = None
    """Recipe that export lowers with."""
    metrics: dict[str, float] = {}
    """Plain figures of the stage that wrote it."""
    lineage: list[dict[str, Any]] = []
    """Stages that made it, oldest first: {"stage", "kind", "job", "seed"}."""


@dataclass(frozen=True)
class Loaded:
    """A model in memory with its description."""

    model: nn.Module
    description: Description
    fresh: tuple[str, ...] = ()
    """Weights that did not come with the model: the library's did not fit, or the head is a new one."""
    told: tuple[str, ...] = ()
    """What people should know of weights that were taken over from elsewhere."""

    def sample(self) -> Inputs:
        """Inputs of the right shape and type where the model is; their content means nothing."""
        return place(self.description.preprocessing.sample(), next(self.model.parameters()).device)


def redescribed(found: Loaded, **update: Any) -> Loaded:
    """The same model with a changed description."""
    return dataclasses.replace(found, description=found.description.model_copy(update=update))


def inputs_of(description: Description) -> list[Input]:
    """Names, shapes and types of what the model is called with."""
    preprocessing = description.preprocessing
    found = []
    for name, axes, tensor in zip(preprocessing.names, preprocessing.axes, preprocessing.sample(1), strict=True):
        shape = [-1, *(-1 if axis in axes else size for axis, size in enumerate(tensor.shape[1:], start=1))]
        found.append(Input(name=name, shape=shape, dtype=str(tensor.dtype).removeprefix("torch.")))
    return found
