"""distill: teach a student what teachers know."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from kompress_api.base import Model
from kompress_api.names import Glob, StageName
from kompress_api.places import ModelSource
from kompress_api.training import Epochs, Training


class Teacher(Model):
    """A model that teaches."""

    from_: StageName
    """Stage above, or `source`."""
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Its share among the teachers; the weights are normalised."""


class DistillLoss(StrEnum):
    """What the student imitates."""

    KD = "KD"
    DKD = "DKD"
    FEATURE = "Feature"
    ATTENTION = "Attention"
    RELATIONAL = "Relational"


class WeightedLoss(Model):
    """One imitation loss."""

    type: DistillLoss = DistillLoss.KD
    """KD: Hinton et al., 2015; DKD: Zhao et al., 2022; Feature: FitNets, Romero et al., 2015; Attention: Zagoruyko et al., 2017;
    Relational: Park et al., 2019."""
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Factor of this loss within the imitation term."""


class LayerPair(Model):
    """A layer of the student that imitates one of the teacher."""

    student: Glob
    """Name of the student's module."""
    teacher: Glob
    """Name of the teacher's module."""


class Distill(Training):
    """Teach a student what teachers know: loss = (1 - alpha) * task + alpha * T^2 * KL(teacher || student)."""

    teachers: Annotated[list[Teacher], Field(min_length=1, max_length=8)]
    """Models that teach."""
    student: ModelSource | None = None
    """The student as a new model. Exactly one of this, `keepLayers` and the stage's explicit `from`."""
    keep_layers: Annotated[list[Annotated[int, Field(ge=0, le=10_000)]], Field(max_length=256)] = []
    """The student is the first teacher with only these of its blocks, by number from 0: of the longest stack of equal ones, such as a
    transformer's layers."""
    epochs: Epochs
    """Passes over the training split."""
    temperature: Annotated[float, Field(gt=0, le=1000)] = 4.0
    """T: both logits are divided by it."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Share of the imitation term."""
    losses: Annotated[list[WeightedLoss], Field(min_length=1, max_length=len(DistillLoss))] = [WeightedLoss()]
    """What the student imitates."""
    layer_mapping: Annotated[list[LayerPair], Field(max_length=64)] = []
    """Pairs of layers for Feature, Attention and Relational; empty: by `patience`."""
    patience: Literal["Skip", "Last"] = "Skip"
    """How layers are paired when layerMapping is empty (Sun et al., 2019): every k-th, or the last ones."""
    teacher_cache: Literal["Auto", "Off"] = "Auto"
    """Auto: where augmentation leaves the samples as they are, a teacher answers each of them once, and its answers are kept in the
    output for whoever asks next; elsewhere, and with Off, it runs along."""
