"""fuse: one model out of several."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from kompress_api.base import Model
from kompress_api.names import StageName
from kompress_api.training import Epochs, Training


class FuseMethod(StrEnum):
    """How the models become one."""

    ENSEMBLE = "Ensemble"
    UNIFORM_SOUP = "UniformSoup"
    GREEDY_SOUP = "GreedySoup"
    LINEAR = "Linear"
    SLERP = "SLERP"
    TASK_ARITHMETIC = "TaskArithmetic"
    TIES = "TIES"
    DARE = "DARE"


class FuseModel(Model):
    """One of the models to fuse."""

    from_: StageName
    """Stage above, or `source`."""
    weight: Annotated[float, Field(gt=-1e6, le=1e6)] = 1.0
    """Its weight; its meaning is the method's."""


class FuseTraining(Training):
    """Training of the fused model or of its head."""

    epochs: Epochs
    """Passes over the training split."""


class Fuse(Model):
    """One model out of several; it takes no `from`, its inputs are `models`."""

    method: FuseMethod
    """Ensemble; UniformSoup, GreedySoup (Wortsman et al., 2022); Linear; SLERP; TaskArithmetic (Ilharco et al., 2023);
    TIES (Yadav et al., 2023); DARE (Yu et al., 2024)."""
    models: Annotated[list[FuseModel], Field(min_length=1, max_length=16)]
    """Models to fuse."""
    base: StageName | None = None
    """Stage above or `source` that task vectors are measured from (TaskArithmetic, TIES, DARE)."""
    head: Literal["Mean", "Learned"] = "Mean"
    """Ensemble: the mean of the outputs, or a learned, weight-normalised head."""
    interpolation: Annotated[float, Field(ge=0, le=1)] = 0.5
    """SLERP: 0 is the first model, 1 the second."""
    scaling: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Factor of the summed task vectors."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of a task vector that is kept (TIES, DARE)."""
    reestimate_batch_norm: bool = True
    """Batch-norm statistics are taken anew from train."""
    fold_batch_norm: bool = False
    """Fold batch norms into the convolutions before them."""
    training: FuseTraining | None = None
    """Training after the merge; absent: none."""
