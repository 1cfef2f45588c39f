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

from kompress_api.errors import InvalidManifest, LabelMismatch
from kompress_api.places import ModelSource
from kompress_jobs import models, registry
from kompress_jobs.chance import mix
from kompress_jobs.description import Architecture, Description, Loaded, redescribed
from kompress_jobs.loading import bundle, transfer
from kompress_jobs.models import Pretrained
from kompress_jobs.modules import structure
from kompress_jobs.samples.splits import Data

Head = Literal["Auto", "Keep", "Replace"]


def load_source(
    source: ModelSource, data: Data, task: str, seed: int, scratch: Path, *, field: str, head: Head = "Auto", role: str = "model"
) -> Loaded:
    """The model of a source, on the CPU; the same seed gives the same fresh weights on every rank. `role` names its credentials.

    Raises UnknownModel, UnknownMethod, InvalidManifest, FactoryNotAllowed, UnsafeFile, ArtifactMissing, ArtifactCorrupt,
    LabelMismatch (`head: Keep`), MethodRefused (the model can't take the images, the weights don't fit).
    """
    scheme, name = models.split(source.source)
    library = registry.load("models", scheme, field=f"{field}.source")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 3))
        if source.architecture is not None:
            found = from_state_dict(source, data, task, scratch, role, field=field)
        elif hasattr(library, "fetch"):
            found = with_labels(bundle.read(library.fetch(source, scratch, role, field=field)), data, head, field=field)
        else:
            found = from_library(source, scheme, name, data, task, field=field)
    module = registry.load("tasks", task, field="spec.task")
    if hasattr(module, "require_fit"):
        module.require_fit(found.model, found.description.preprocessing, data, field=f"{field}.source")
    return with_weights(found, source, scratch, role, field=field)


def from_state_dict(source: ModelSource, data: Data, task: str, scratch: Path, role: str, *, field: str) -> Loaded:
    """Build `architecture` and load the safetensors of `source` into it."""
    scheme, _ = models.split(source.source)
    place = registry.load("models", scheme, field=f"{field}.source")
    for useless, name in ((not hasattr(place, "fetch_weights"), "architecture"), (source.pretrained, "pretrained")):
        if useless:
            raise InvalidManifest(
                f"{name} would be ignored: {source.source} {'brings its own' if name == 'architecture' else 'holds the weights'}",
                hint="leave it out; architecture is for a safetensors file at s3://, file:// or mlflow://",
                field=f"{field}.{name}",
            )
    built = ModelSource(source=str(source.architecture), arguments=source.arguments)
    found = from_library(built, *models.split(built.source), data, task, field=field)
    given = transfer.read(place.fetch_weights(source, scratch, role, field=field))
    fresh = transfer.whole(found.model, given, len(data.labels), source.source, field=field)
    return dataclasses.replace(found, fresh=fresh)


def with_weights(found: Loaded, source: ModelSource, scratch: Path, role: str, *, field: str) -> Loaded:
    """Take over what `weights` asks for, one entry after the other."""
    for index, asked in enumerate(source.weights):
        where = f"{field}.weights[{index}]"
        place = registry.load("models", models.split(asked.source)[0], field=f"{where}.source")
        given = transfer.read(place.fetch_weights(asked, scratch, f"{role}-weights{index}", field=where))
        taken, told = transfer.part(found.model, given, asked, field=where)
        fresh = tuple(name for name in found.fresh if name not in taken)
        found = dataclasses.replace(found, fresh=fresh, told=(*found.told, told))
    return found


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
    description = Description(
        task=task,
        architecture=architecture,
        labels=data.labels,
        multi_label=data.multi_label,
        ctc=data.transcribed,
        preprocessing=preprocessing,
    )
    found = with_outputs(Loaded(model, description), classes)
    return dataclasses.replace(found, fresh=tuple(sorted({*fresh, *found.fresh})) if source.pretrained else ())


def take_over(model: nn.Module, state: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Load what fits by name and shape, all but a head of another size; returns the names of the model's weights that stay fresh."""
    own = model.state_dict()
    taken = transfer.fit(own, state).taken
    model.load_state_dict(taken, strict=False)
    return tuple(sorted(own.keys() - taken.keys()))


def with_labels(found: Loaded, data: Data, head: Head, *, field: str) -> Loaded:
    """Make a bundle's head and preprocessing fit the data: replaced where its labels are others, or where that is asked for."""
    description = found.description
    task = registry.load("tasks", description.task, field="bundle.json: task")
    fitting = task.refitted(description.preprocessing, found.model, data, field=field)
    if fitting is not description.preprocessing:
        found = redescribed(found, preprocessing=fitting)
    same = description.labels == data.labels and description.multi_label == data.multi_label
    if same and head != "Replace":
        return found
    if head == "Keep":
        raise LabelMismatch(
            f"the model knows {len(description.labels)} labels ({_few(description.labels)}), "
            f"the data has {len(data.labels)} ({_few(data.labels)}){', several a sample' if data.multi_label else ''}",
            hint="use head: Auto to give it a new head, or data with the same labels",
            field=field,
        )
    return replace_head(redescribed(found, multi_label=data.multi_label), data.labels)


def with_outputs(found: Loaded, classes: int) -> Loaded:
    """Replace the head of a model whose factory made another number of outputs."""
    with torch.no_grad():
        outputs = found.model.eval()(*found.description.preprocessing.sample())
    scores = outputs[0] if isinstance(outputs, tuple) else outputs
    return found if scores.ndim in (2, 3) and scores.shape[-1] == classes else replace_head(found, found.description.labels)


def replace_head(found: Loaded, labels: list[str]) -> Loaded:
    """A fresh head for these labels, and fresh auxiliary ones, remembered in the history."""
    model, history, fresh = found.model, list(found.description.history), set(found.fresh)
    for name in structure.heads_of(model, found.description.preprocessing.sample()):
        model = structure.with_head(model, name, len(labels))
        history.append({"change": "head", "module": name, "outputs": len(labels)})
        fresh |= {f"{name}.{own}".lstrip(".") for own, _ in model.get_submodule(name).named_parameters()}
    return redescribed(dataclasses.replace(found, model=model, fresh=tuple(sorted(fresh))), history=history, labels=labels)


def _few(labels: list[str]) -> str:
    return ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
