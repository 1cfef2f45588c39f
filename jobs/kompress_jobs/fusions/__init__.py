"""How several models become one. The method's name is the module, with

- `refuse(spec, field)`, which raises MethodRefused for what the method can't take or would ignore,
- `fuse(material) -> Fused`, a function of tensors: no file, no training.

Ensemble keeps the models side by side and is a module of its own (`modules/ensemble.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from kompress_api.errors import MethodRefused
from kompress_api.stages.fuse import Fuse

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Material:
    """What is fused: models of one structure, by parameter and buffer names."""

    models: Sequence[Tensors]
    base: Tensors | None
    """What task vectors are measured from."""
    spec: Fuse
    score: Callable[[Tensors], float]
    """Collective: accuracy on the validation split, batch norms re-estimated where the spec says so."""
    seed: int

    @property
    def weights(self) -> list[float]:
        """Of the models, as the manifest gives them."""
        return [model.weight for model in self.spec.models]

    def names(self) -> Iterator[str]:
        """Tensors that are fused: the floating ones. Counters are the first model's."""
        return (name for name, tensor in self.models[0].items() if tensor.is_floating_point())


@dataclass(frozen=True)
class Fused:
    """The one model."""

    state: Tensors
    details: dict[str, Any] = field(default_factory=dict)
    """For the manifest."""


def assemble(material: Material, one: Callable[[str], torch.Tensor]) -> Tensors:
    """The first model's tensors with every floating one replaced by `one(name)`, in its own type."""
    fused = {name: one(name).to(material.models[0][name].dtype) for name in material.names()}
    return {name: fused.get(name, tensor) for name, tensor in material.models[0].items()}


def average(material: Material, weights: Sequence[float]) -> Tensors:
    """Weighted mean; the weights are normalised."""
    total = sum(weights)

    def one(name: str) -> torch.Tensor:
        parts = [model[name].double() * (weight / total) for model, weight in zip(material.models, weights, strict=True)]
        return torch.stack(parts).sum(0)

    return assemble(material, one)


def task_vectors(material: Material, name: str) -> list[torch.Tensor]:
    """What each model has learned since `base`, in float64."""
    assert material.base is not None
    return [model[name].double() - material.base[name].double() for model in material.models]


def add_up(material: Material, change: Callable[[str, int, torch.Tensor], torch.Tensor]) -> Tensors:
    """base + scaling * sum of weight * `change(name, place of the model, its task vector)`."""

    def one(name: str) -> torch.Tensor:
        assert material.base is not None
        moved = material.base[name].double()
        for index, (vector, weight) in enumerate(zip(task_vectors(material, name), material.weights, strict=True)):
            moved = moved + material.spec.scaling * weight * change(name, index, vector)
        return moved

    return assemble(material, one)


def refuse_weights(spec: Fuse, *, field: str) -> None:
    """Raise MethodRefused when a method that treats all models alike is given weights."""
    for index, model in enumerate(spec.models):
        if model.weight != 1:
            raise MethodRefused(
                f"{spec.method} treats all models alike, the weight {model.weight:g} would be ignored",
                hint="leave the weight out, or use method Linear",
                field=f"{field}.models[{index}].weight",
            )


def refuse_no_base(spec: Fuse, *, field: str) -> None:
    """Raise MethodRefused when a method of task vectors is not told what they are measured from."""
    if spec.base is None:
        raise MethodRefused(
            f"{spec.method} adds up what each model has learned since a common base, and there is none",
            hint="set base to the stage (or source) that all models were fine-tuned from",
            field=f"{field}.base",
        )
