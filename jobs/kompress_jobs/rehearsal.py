"""Every stage of a plan once, on a few samples and the CPU: what can't work is refused before the first GPU is asked for.

A stage's module has `rehearse(stage, inputs, room, field) -> Loaded`: it refuses what it can't do by field path, does its
method once on the models that the stages above would hand it, and gives back a model of the structure that it would make.
Weights are fresh or those of the source, so structure and size are what is learned here, never accuracy.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from kompress_api.dag import inputs_of
from kompress_api.errors import KompressError, MethodRefused
from kompress_api.job import CompressionJobSpec, Evaluation
from kompress_api.names import SOURCE
from kompress_jobs import assemble, registry
from kompress_jobs.bundle import Loaded
from kompress_jobs.data import Data
from kompress_jobs.measure import size
from kompress_jobs.training.batches import Batch
from kompress_jobs.training.loop import Objective, set_training
from kompress_jobs.training.refusals import refuse_augmentation

SAMPLES = 4
"""Training samples that a stage is rehearsed with."""


@dataclass(frozen=True)
class Room:
    """What a rehearsal may use."""

    data: Data
    """The first samples will do."""
    task: ModuleType
    task_name: str
    seed: int
    scratch: Path

    def batch(self) -> Batch:
        """A few training samples."""
        indices = torch.arange(min(SAMPLES, len(self.data.train)))
        samples, found = self.data.train.read(indices)
        return Batch(samples, self.data.train.labels[indices[found]], indices[found], 1.0)

    def step(self, found: Loaded, learn: Objective, *, field: str) -> None:
        """One forward and backward pass; raises MethodRefused with the model's own words when it can't be trained."""
        try:
            set_training(found.model)
            learn(found.model, self.batch()).backward()  # type: ignore[no-untyped-call]
        except KompressError:
            raise
        except Exception as error:
            raise MethodRefused(
                f"the model can't be trained on these samples: {error}",
                hint="use another model, or of images set dataset.imageSize to a size that the model takes",
                field=field,
            ) from error
        finally:
            found.model.zero_grad(set_to_none=True)


@dataclass(frozen=True)
class Forecast:
    """How large a stage's model will be."""

    parameters: int
    macs: int
    model_size_bytes: int
    """Of the weights in float32."""
    exact: bool
    """False where the method decides by what the weights turn out to be (global pruning)."""


def rehearse(spec: CompressionJobSpec, data: Data, scratch: Path) -> dict[str, Forecast]:
    """Rehearse all stages in order; forecasts by stage name, and of `source`.

    Raises the first KompressError with its field path (`spec.stages[1].prune.granularity`).
    """
    refuse_evaluation(spec.evaluation)
    task = registry.load("tasks", spec.task, field="spec.task")
    room = Room(data, task, spec.task, spec.seed, scratch)
    source = assemble.load_source(spec.model, data, spec.task, spec.seed, scratch, field="spec.model")
    models = {SOURCE: source}
    forecasts = {SOURCE: forecast(source, exact=True)}
    for index, stage in enumerate(spec.stages):
        field = f"spec.stages[{index}].{stage.kind}"
        module = registry.load("stages", stage.kind, field=field)
        refuse_augmentation(stage.spec, task, field=field)
        inputs = {entry.role: fresh_copy(models[entry.stage]) for entry in inputs_of(spec, stage)}
        exact = all(forecasts[entry.stage].exact for entry in inputs_of(spec, stage) if entry.role == "model")
        models[stage.name] = module.rehearse(stage, inputs, room, field=field)
        forecasts[stage.name] = forecast(models[stage.name], exact=exact and getattr(module, "is_exact", _always)(stage))
    return forecasts


def refuse_evaluation(evaluation: Evaluation) -> None:
    """What the report can't compare yet."""
    for name, asked in (("seeds", evaluation.seeds > 1), ("datasets", bool(evaluation.datasets))):
        if asked:
            raise MethodRefused(f"{name} is not built in this version", hint="leave it out", field=f"spec.evaluation.{name}")


def fresh_copy(found: Loaded) -> Loaded:
    """A copy that a stage may change."""
    return Loaded(copy.deepcopy(found.model), found.description)


def forecast(found: Loaded, *, exact: bool) -> Forecast:
    """Measure a rehearsed model."""
    measured: Mapping[str, float] = size.sizes(found.model, found.description.preprocessing.sample(1))
    return Forecast(int(measured["parameters"]), int(measured["macs"]), int(measured["modelSizeBytes"]), exact)


def _always(stage: object) -> bool:
    return True
