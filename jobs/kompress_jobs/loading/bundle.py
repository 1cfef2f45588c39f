"""A model on disk without pickle: `bundle.json` says how it is built, `model.safetensors` holds its weights; a tokenizer lies beside.

A model is rebuilt as factory + replayed structural history + weights (loaded strictly), so what was pruned can be read
back by any process that has the same libraries. Committing, digests and transport are the store's.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from kompress_api.base import Model
from kompress_api.errors import ArtifactCorrupt, ArtifactMissing, UnsafeFile
from kompress_jobs import models
from kompress_jobs.modules import history
from kompress_jobs.preprocessing import AnyPreprocessing
from kompress_jobs.samples import Inputs, place

DESCRIPTION = "bundle.json"
WEIGHTS = "model.safetensors"
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")


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
    """Structural changes in order; each is {"change": name, ...}, see `history`."""
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


def write(folder: Path, model: nn.Module, description: Description) -> None:
    """Write a bundle into an empty or new folder. Tied weights are kept once."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, str(folder / WEIGHTS))
    write_description(folder / DESCRIPTION, description)


def write_description(path: Path, description: Description, **more: Any) -> None:
    """Write the description, with `more` beside it, and the files of its preprocessing."""
    content = description.model_copy(update={"inputs": inputs_of(description)}).dump() | more
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for name, data in description.preprocessing.files().items():
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / name).write_bytes(data)


def inputs_of(description: Description) -> list[Input]:
    """Names, shapes and types of what the model is called with."""
    preprocessing = description.preprocessing
    found = []
    for name, axes, tensor in zip(preprocessing.names, preprocessing.axes, preprocessing.sample(1), strict=True):
        shape = [-1, *(-1 if axis in axes else size for axis, size in enumerate(tensor.shape[1:], start=1))]
        found.append(Input(name=name, shape=shape, dtype=str(tensor.dtype).removeprefix("torch.")))
    return found


def describe(folder: Path) -> Description:
    """Read bundle.json; raises ArtifactMissing, ArtifactCorrupt, or UnsafeFile where the folder holds pickles instead."""
    path = folder / DESCRIPTION
    if not path.is_file():
        pickles = sorted(entry.name for entry in folder.glob("*") if entry.suffix in PICKLES) if folder.is_dir() else []
        if pickles:
            raise UnsafeFile(
                f"{folder} holds {pickles[0]}, a pickle, and no {DESCRIPTION}",
                hint="pickles execute code when read: save the weights with safetensors, or make a bundle with a kompress stage",
            )
        raise ArtifactMissing(f"{folder} holds no {DESCRIPTION}", hint="name the folder of a bundle that a kompress stage wrote")
    try:
        described = Description.model_validate_json(path.read_bytes())
        return described.model_copy(update={"preprocessing": described.preprocessing.load(folder)})
    except ValidationError as error:
        raise ArtifactCorrupt(f"{path} is no bundle description: {error.errors()[0]['msg']}", hint="make the bundle again") from error


def rebuild(description: Description) -> nn.Module:
    """The model of a description with fresh weights: built by its factory, its history replayed."""
    architecture = description.architecture
    model = models.construct(
        architecture.source, architecture.arguments, architecture.num_classes, description.task, field="bundle.json: architecture"
    )
    return history.replay(model, description.history, description.preprocessing.sample())


def read(folder: Path) -> Loaded:
    """Rebuild the model and load its weights strictly; it comes in evaluation mode on the CPU."""
    description = describe(folder)
    model = rebuild(description)
    try:
        load_model(model, str(folder / WEIGHTS), strict=True)
    except FileNotFoundError as error:
        raise ArtifactMissing(f"{folder} holds no {WEIGHTS}", hint="make the bundle again") from error
    except (SafetensorError, RuntimeError) as error:
        raise ArtifactCorrupt(f"{folder / WEIGHTS} does not fit {DESCRIPTION}: {error}", hint="make the bundle again") from error
    return Loaded(model.eval(), description)


def weights_bytes(state: Mapping[str, torch.Tensor]) -> int:
    """Bytes of the weights, tied ones counted once."""
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in state.values() if tensor.numel()}.values())
