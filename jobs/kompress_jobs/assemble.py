"""From a model source of the manifest to a model with its description, fit for the task's data.

An architecture of a library is built with as many outputs as there are labels and takes over the library's weights where
their shapes fit, so a bundle can build it again. A bundle comes as it is; its head is kept, or replaced where the labels
differ and the stage allows it, and the change is written into its history.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from kompress_api.errors import LabelMismatch, MethodRefused
from kompress_api.places import ModelSource
from kompress_jobs import bundle, models, registry, structure
from kompress_jobs.bundle import Architecture, Description, Loaded
from kompress_jobs.data import Data
from kompress_jobs.models import PLACES, Pretrained
from kompress_jobs.training.order import mix

Head = Literal["Auto", "Keep", "Replace"]


def load_source(
    source: ModelSource, data: Data, task: str, seed: int, scratch: Path, *, field: str, head: Head = "Auto", role: str = "model"
) -> Loaded:
    """The model of a source, on the CPU; the same seed gives the same fresh weights on every rank. `role` names its credentials.

    Raises UnknownModel, UnknownMethod, InvalidManifest, FactoryNotAllowed, UnsafeFile, ArtifactMissing, ArtifactCorrupt,
    LabelMismatch (`head: Keep`), MethodRefused (the model can't take the images).
    """
    for name, asked in (("weights", source.weights), ("architecture", source.architecture)):
        if asked:
            raise MethodRefused(f"{name} is not built in this version", hint="name a library's model or a bundle", field=f"{field}.{name}")
    scheme, name = models.split(source.source)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 3))
        if scheme in PLACES:
            found = bundle.read(registry.load("models", scheme, field=f"{field}.source").fetch(source, scratch, role, field=field))
            return with_labels(found, data, head, field=field)
        return from_library(source, scheme, name, data, task, field=field)


def from_library(source: ModelSource, scheme: str, name: str, data: Data, task: str, *, field: str) -> Loaded:
    """Build an architecture, with the library's weights where they are asked for."""
    classes = len(data.labels)
    library = registry.load("models", scheme, field=f"{field}.source")
    arguments = library.settled(name, source.arguments, task, field=field) if hasattr(library, "settled") else source.arguments
    model = models.construct(source.source, arguments, classes, task, field=field)
    pretrained, fresh = Pretrained(), ()
    if source.pretrained:
        pretrained = library.pretrained(name, source.arguments, task, field=field)
        fresh = take_over(model, pretrained.state)
    preprocessing = None
    if hasattr(library, "preprocessing"):
        preprocessing = library.preprocessing(name, arguments, model, data, task, field=field)
    if preprocessing is None:
        preprocessing = registry.load("tasks", task, field="spec.task").preprocessing_for(model, data, pretrained, field=field)
    architecture = Architecture(source=source.source, arguments=arguments, num_classes=classes)
    description = Description(task=task, architecture=architecture, labels=data.labels, preprocessing=preprocessing)
    found = with_outputs(Loaded(model, description), classes)
    return dataclasses.replace(found, fresh=tuple(sorted({*fresh, *found.fresh})) if source.pretrained else ())


def take_over(model: nn.Module, state: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Load what fits by name and shape, all but a head of another size; returns the names of the model's weights that stay fresh."""
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    model.load_state_dict(fitting, strict=False)
    return tuple(sorted(own.keys() - fitting.keys()))


def with_labels(found: Loaded, data: Data, head: Head, *, field: str) -> Loaded:
    """Make a bundle's head and preprocessing fit the data: replaced where its labels are others, or where that is asked for."""
    description = found.description
    task = registry.load("tasks", description.task, field="bundle.json: task")
    fitting = task.refitted(description.preprocessing, found.model, data, field=field)
    if fitting is not description.preprocessing:
        found = Loaded(found.model, description.model_copy(update={"preprocessing": fitting}))
    same = description.labels == data.labels
    if same and head != "Replace":
        return found
    if head == "Keep":
        raise LabelMismatch(
            f"the model knows {len(description.labels)} labels ({_few(description.labels)}), "
            f"the data has {len(data.labels)} ({_few(data.labels)})",
            hint="use head: Auto to give it a new head, or data with the same labels",
            field=field,
        )
    return replace_head(found, data.labels)


def with_outputs(found: Loaded, classes: int) -> Loaded:
    """Replace the head of a model whose factory made another number of outputs."""
    with torch.no_grad():
        outputs = found.model.eval()(*found.description.preprocessing.sample())
    scores = outputs[0] if isinstance(outputs, tuple) else outputs
    return found if scores.ndim == 2 and scores.shape[1] == classes else replace_head(found, found.description.labels)


def replace_head(found: Loaded, labels: list[str]) -> Loaded:
    """A fresh head for these labels, remembered in the history."""
    name = structure.head_of(found.model, found.description.preprocessing.sample())
    model = structure.with_head(found.model, name, len(labels))
    change = {"change": "head", "module": name, "outputs": len(labels)}
    history = [*found.description.history, change]
    fresh = tuple(f"{name}.{own}".lstrip(".") for own, _ in model.get_submodule(name).named_parameters())
    return Loaded(model, found.description.model_copy(update={"history": history, "labels": labels}), fresh)


def _few(labels: list[str]) -> str:
    return ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
