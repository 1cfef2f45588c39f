"""Every stage of a plan once, on a few samples and the CPU: what can't work is refused before the first GPU is asked for.

A stage's module has `rehearse(stage, inputs, room, field) -> Loaded`: it refuses what it can't do by field path, does its
method once on the models that the stages above would hand it, and gives back a model of the structure that it would make.
Weights are fresh or those of the source, so structure and size are what is learned here, never accuracy.

Where the size depends on the weights, the module has `bounds(stage, low, high, expected, room, exact, field) -> Bounds` too: from the
smallest and the largest model that may come in, the smallest and the largest that may come out. Then all stages below are
rehearsed with those two as well. Sizes grow with every layer's width, so what holds for the layers holds for the sum.
"""

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch

from kompress_api.dag import inputs_of
from kompress_api.errors import KompressError, MethodRefused
from kompress_api.goals import QUALITY, judged_by, measured_by
from kompress_api.job import CompressionJobSpec
from kompress_api.names import SOURCE
from kompress_api.stages.export import Device
from kompress_api.stages.stage import Stage
from kompress_api.training import Training
from kompress_jobs import registry
from kompress_jobs.description import Loaded
from kompress_jobs.evaluation import other_data, seeds
from kompress_jobs.loading import assemble
from kompress_jobs.measure import size
from kompress_jobs.rehearsal import memory
from kompress_jobs.rehearsal.memory import NOTHING, Costs, Span
from kompress_jobs.samples.splits import Data
from kompress_jobs.training.batches import Batch
from kompress_jobs.training.loop import set_training
from kompress_jobs.training.plan import Objective
from kompress_jobs.training.recompute import recomputed
from kompress_jobs.training.refusals import refuse_for_task, refuse_shared_gpus

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

    def step(self, found: Loaded, learn: Objective, settings: Training, *, field: str) -> None:
        """One forward and backward pass; raises MethodRefused with the model's own words when it can't be trained."""
        twice = settings.activation_checkpointing
        try:
            set_training(found.model)
            with recomputed(found.model, enabled=twice, field=f"{field}.activationCheckpointing"):
                learn(found.model, self.batch()).backward()  # type: ignore[no-untyped-call]
        except KompressError:
            raise
        except Exception as error:
            raise MethodRefused(
                f"the model can't be trained on these samples: {error}",
                hint=self.task.size_hint(found.model, self.data.image_size) if hasattr(self.task, "size_hint") else "use another model",
                field=field,
            ) from error
        finally:
            found.model.zero_grad(set_to_none=True)


@dataclass(frozen=True)
class Sizes:
    """Of a model."""

    parameters: int
    macs: int
    model_size_bytes: int
    """Of the weights in float32."""


@dataclass(frozen=True)
class Forecast(Sizes):
    """How large a stage's model will be."""

    low: Sizes
    """It will not be smaller."""
    high: Sizes
    """It will not be larger."""
    worker: Span = NOTHING
    """Peak memory of a worker of the stage, bytes."""
    artifact: Span = NOTHING
    """Of the stage's files, bytes."""

    @property
    def exact(self) -> bool:
        """False where the method decides by what the weights turn out to be (global pruning, a search, a budget of latency)."""
        return self.low == self.high


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest model that a stage may make, whatever the weights."""

    low: Loaded
    high: Loaded
    ceilings: Mapping[str, float] = field(default_factory=dict)
    """Figure -> most that the stage lets it be, where that is less than `high` has."""


@dataclass(frozen=True)
class Rehearsed:
    """What a stage would make."""

    expected: Loaded
    bounds: Bounds | None = None
    """None: just what is expected."""

    @property
    def low(self) -> Loaded:
        """The smallest that it may make."""
        return self.bounds.low if self.bounds else self.expected

    @property
    def high(self) -> Loaded:
        """The largest that it may make."""
        return self.bounds.high if self.bounds else self.expected


def rehearse(spec: CompressionJobSpec, data: Data, scratch: Path, held: Span = NOTHING) -> dict[str, Forecast]:
    """Rehearse all stages in order; forecasts by stage name, and of `source`. `held` is what a worker holds of the data beyond `data`.

    Raises the first KompressError with its field path (`spec.stages[1].prune.granularity`).
    """
    refuse_seeds(spec)
    refuse_goals(spec)
    task = registry.load("tasks", spec.task, field="spec.task")
    start = memory.resident()
    room = Room(data, task, spec.task, spec.seed, scratch)
    source = assemble.load_source(spec.model, data, spec.task, spec.seed, scratch, field="spec.model")
    other_data.rehearse(spec, data, source, task, scratch)
    models = {SOURCE: Rehearsed(source)}
    loaded = memory.resident()
    for index, stage in enumerate(spec.stages):
        field = f"spec.stages[{index}].{stage.kind}"
        models[stage.name] = rehearse_stage(spec, stage, models, room, field=field)
        refuse_gpus(spec, stage, field=field)
    found = {name: forecast(made) for name, made in models.items()}
    costs = {name: costs_of(made, room) for name, made in models.items()}
    with_libraries = loaded - costs[SOURCE].likely.weights
    for stage in spec.stages:
        ground = memory.ground(spec, stage, start=start, with_libraries=with_libraries, held=held)
        taken = {entry.role: costs[entry.stage] for entry in inputs_of(spec, stage)}
        worker = memory.of_worker(spec, stage, taken, costs[stage.name], ground, len(data.train))
        recipe = models[stage.name].expected.description.quantization is not None
        artifact = memory.of_artifact(stage, costs[stage.name], recipe=recipe)
        found[stage.name] = dataclasses.replace(found[stage.name], worker=worker, artifact=artifact)
    return found


def costs_of(made: Rehearsed, room: Room) -> Costs:
    """What the models that a stage may make take of memory."""
    batch = room.batch()
    likely = memory.cost_of(made.expected, batch, room.task)
    if made.bounds is None:
        return Costs(likely, likely, likely)
    low, high = (memory.cost_of(model, batch, room.task) for model in (made.low, made.high))
    return Costs(low, likely, high)


def rehearse_stage(spec: CompressionJobSpec, stage: Stage, models: Mapping[str, Rehearsed], room: Room, *, field: str) -> Rehearsed:
    """One stage, from what those above would make."""
    module = registry.load("stages", stage.kind, field=field)
    refuse_for_task(stage.spec, room.task, field=field)
    entries = {entry.role: models[entry.stage] for entry in inputs_of(spec, stage)}

    def inputs(which: str) -> dict[str, Loaded]:
        return {role: fresh_copy(getattr(made, which)) for role, made in entries.items()}

    expected: Loaded = module.rehearse(stage, inputs("expected"), room, field=field)
    model = entries.get("model")
    if model is not None and hasattr(module, "bounds"):
        low, high = (fresh_copy(entry) for entry in (model.low, model.high))
        found: Bounds = module.bounds(stage, low, high, expected, room, exact=model.bounds is None, field=field)
        return Rehearsed(expected, None if sizes(found.low) == sizes(found.high) else found)
    if all(made.bounds is None for made in entries.values()):
        return Rehearsed(expected)
    low, high = (module.rehearse(stage, inputs(which), room, field=field) for which in ("low", "high"))
    return Rehearsed(expected, Bounds(low, high, model.bounds.ceilings if model and model.bounds else {}))


def refuse_seeds(spec: CompressionJobSpec) -> None:
    """Raise MethodRefused where another seed would change nothing."""
    if spec.evaluation.seeds > 1 and not any(seeds.trains(stage) for stage in spec.stages):
        raise MethodRefused("no stage trains, so that another seed changes nothing", hint="leave it out", field="spec.evaluation.seeds")


def refuse_goals(spec: CompressionJobSpec) -> None:
    """Raise MethodRefused for a goal whose figure no model of the task has: it could only be missed."""
    measured = measured_by(spec.task)
    for index, goal in enumerate(spec.goals):
        if goal.metric in QUALITY and goal.metric not in measured:
            raise MethodRefused(
                f"{spec.task} has no {goal.metric}",
                hint=f"use {judged_by(spec.task)}, or another of {', '.join(sorted(measured))}",
                field=f"spec.goals[{index}].metric",
            )


def refuse_gpus(spec: CompressionJobSpec, stage: Stage, *, field: str) -> None:
    """Raise MethodRefused for what a stage can't do with the GPUs that it asks for, as far as resources tell."""
    there = bool(memory.devices(spec, stage)) or torch.cuda.is_available()
    for index, target in enumerate(stage.export.targets if stage.export else ()):
        if target.device is Device.GPU and not there:
            raise MethodRefused(
                "the stage has no GPU to measure on",
                hint="ask for one with runtime.resources.limits: {nvidia.com/gpu: 1}, in the stage or the job",
                field=f"{field}.targets[{index}].device",
            )
    processes = memory.said(spec, stage, "processes_per_node")
    if isinstance(processes, int) and 0 < memory.gpus(spec, stage) < processes:
        refuse_shared_gpus(stage.spec, field=field)


def fresh_copy(found: Loaded) -> Loaded:
    """A copy that a stage may change."""
    return Loaded(copy.deepcopy(found.model), found.description)


def forecast(made: Rehearsed) -> Forecast:
    """Measure what was rehearsed."""
    expected, ceilings = sizes(made.expected), made.bounds.ceilings if made.bounds else {}
    if made.bounds is None:
        low = high = expected
    else:
        low, largest = sizes(made.low), sizes(made.high)
        parameters, macs = (int(min(getattr(largest, name), ceilings.get(name, math.inf))) for name in ("parameters", "macs"))
        high = Sizes(parameters, macs, largest.model_size_bytes)
    return Forecast(expected.parameters, expected.macs, expected.model_size_bytes, low, high)


def sizes(found: Loaded) -> Sizes:
    """Measure a model."""
    measured: Mapping[str, float] = size.sizes(found.model, found.description.preprocessing.sample(1))
    return Sizes(int(measured["parameters"]), int(measured["macs"]), int(measured["modelSizeBytes"]))
