"""What every stage does around its own idea: load its inputs, measure, write a bundle and prove that it can be read.

A stage opens a `Bench`, takes models from it, changes one, and closes with `finish`. All methods marked collective must be
called by every rank.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import nn

from kompress_api.errors import AccuracyCollapsed, Interrupted, MethodRefused
from kompress_api.goals import HIGHER_IS_BETTER, SOURCE_PREFIX, judged_by
from kompress_api.training import Training
from kompress_jobs import data, registry, reload, tasks
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import Description, Loaded
from kompress_jobs.gang import Gang
from kompress_jobs.loading import assemble, bundle
from kompress_jobs.measure import latency, predictions, size
from kompress_jobs.measure.classification import Figures
from kompress_jobs.measure.predictions import Predictions
from kompress_jobs.samples import place
from kompress_jobs.samples.splits import Data, Split
from kompress_jobs.training import objective
from kompress_jobs.training.checkpoint import Checkpoints
from kompress_jobs.training.evaluate import evaluate
from kompress_jobs.training.loop import train
from kompress_jobs.training.plan import Objective, Plan
from kompress_jobs.training.state import State

Spec = TypeVar("Spec")
Done = TypeVar("Done")

NAMES_TOLD = 4
KNOWS = 0.1
"""Share of the way from chance to perfection from which on a model knows something, however few labels there are."""
SAMPLES_TOLD = 1000
"""Training samples whose length is looked at."""


@dataclass(frozen=True)
class Measured:
    """A model's figures on the test split, with what stands beside them."""

    values: dict[str, float]
    """By the names of kompress_api.goals."""
    details: dict[str, Any]
    """intervals, perClass, samples."""
    predictions: Predictions | None = None
    """What the model said of each sample, on the ranks that looked."""

    @classmethod
    def of(cls, scored: Figures, values: dict[str, float] | None = None) -> "Measured":
        """What was scored, with other values beside it."""
        intervals = {name: list(interval) for name, interval in scored.intervals.items()}
        details = {"intervals": intervals, "perClass": scored.per_class, "samples": scored.samples}
        return cls(scored.values | (values or {}), details, scored.predictions)


class Bench:
    """One stage's data, gang and checkpoints."""

    def __init__(self, context: StageContext) -> None:
        self.context = context
        self.input = context.input
        self.task: ModuleType = registry.load("tasks", self.input.task, field="spec.task")
        self.data: Data = data.load(self.input.dataset, context.scratch, transcripts=tasks.transcripts(self.task))
        self.gang = Gang(context.rank, context.world_size, context.device)
        self.checkpoints = Checkpoints(context, self.gang)
        if self.input.stage is not None:
            context.events.params(
                flat(self.input.stage.dump(), leave=("runtime",)) | {"seed": self.input.seed, "processes": context.world_size}
            )
        for split, paths in self.data.unreadable.items():
            if paths:
                context.events.warning(f"{len(paths)} unreadable samples of split {split} were skipped, the first is {paths[0]}")
        if absent := self.data.absent:
            context.events.warning(f"train has no sample of {', '.join(absent[:NAMES_TOLD])}: no model can learn what it never sees")
        if hasattr(self.task, "remarks_on_data"):
            self.warn(self.task.remarks_on_data(self.data))

    def warn(self, remarks: Iterable[str]) -> None:
        """Tell people each of them."""
        for remark in remarks:
            self.context.events.warning(remark)

    def field(self, *path: str) -> str:
        """Path of a field of this stage in the manifest."""
        assert self.input.stage is not None
        return ".".join((f"spec.stages({self.input.name})", self.input.stage.kind, *path))

    def take(self, role: str, head: assemble.Head = "Auto") -> Loaded:
        """The model of an input, on this rank's device; `source` is built from spec.model.

        Raises LabelMismatch when a stage's model has other labels than the data.
        """
        if self.context.is_source(role):
            found = assemble.load_source(
                self.input.model, self.data, self.input.task, self.input.seed, self.context.scratch, field="spec.model", head=head
            )
        else:
            found = assemble.with_labels(bundle.read(self.context.artifact(role)), self.data, head, field=self.field())
        self.tell(found)
        found.model.to(self.context.device)
        return found

    def tell(self, found: Loaded) -> None:
        """Say what a model that was just loaded took over, and what it won't use: weights that did not fit, samples that are too large."""
        if self.gang.rank:
            return
        for told in found.told:
            self.context.events.warning(told)
        if found.fresh:
            names = ", ".join(found.fresh[:NAMES_TOLD]) + (", ..." if len(found.fresh) > NAMES_TOLD else "")
            self.context.events.warning(f"{len(found.fresh)} weights do not come with the model and start fresh: {names}")
        if hasattr(self.task, "remarks_on_model"):
            self.warn(self.task.remarks_on_model(found, self.data))
        if not found.description.preprocessing.limited:
            return
        count = len(self.data.train)
        looked_at = torch.arange(min(count, SAMPLES_TOLD)) * count // min(count, SAMPLES_TOLD)
        samples, seen = self.data.train.read(looked_at)
        if shortened := found.description.preprocessing.shortened(samples):
            self.context.events.warning(
                f"{shortened} of {len(seen)} training samples that were looked at are longer than the model takes: their ends are cut off"
            )

    def score(self, found: Loaded, split: Split, *, intervals: bool) -> Figures:
        """Collective: the task's figures."""
        described = found.description
        return evaluate(found.model, split, self.task, described.preprocessing, described.labels, self.gang, intervals=intervals)

    def accuracy(self, found: Loaded) -> float:
        """Collective: how good a model is on the validation split, as the task says it."""
        return float(self.task.accuracy(self.score(found, self.data.validation, intervals=False).values))

    def stop_point(self) -> None:
        """Collective: raise Interrupted when any rank was asked to stop. A place where there is nothing to checkpoint."""
        if self.gang.gather(torch.tensor([self.context.stop.requested])).any():
            raise Interrupted("stopped from outside between two trainings", hint="start the job again: finished work is reused")

    def alone(self, work: Callable[[], Done]) -> Done | None:
        """Collective: what rank 0 does while the others wait, and there alone what came of it. When it was stopped, all are."""
        done, stopped = None, None
        torch.cuda.empty_cache()  # what this process keeps of a GPU for later, who works may need now
        if self.gang.rank == 0:
            try:
                done = work()
            except Interrupted as error:
                stopped = error.message, error.hint
        if stopped := self.gang.broadcast(stopped):
            raise Interrupted(stopped[0], hint=stopped[1])
        return done

    def before(self, role: str, found: Loaded) -> Measured:
        """Collective: figures of an input as `take` gave it. What the stage that made it has measured, on the same test split, is not
        measured again; a source is, and so is a model that got another head, or whose figures are its quantized twin's. A stop point.
        """
        if not self.context.is_source(role):
            told, described = self.context.told(role), bundle.describe(self.context.artifact(role))
            if told.metrics and found.description == described and described.quantization is None:
                self.stop_point()
                values = {name: value for name, value in told.metrics.items() if not name.startswith(SOURCE_PREFIX)}
                return Measured(values, {name: told.details[name] for name in ("intervals", "perClass", "samples")})
        return self.measure(found)

    def measure(self, found: Loaded) -> Measured:
        """Collective: figures on the test split, size, and eager latency (rank 0, batch 1, one thread). A stop point."""
        self.stop_point()
        scored = self.score(found, self.data.test, intervals=True)
        sample = place(found.description.preprocessing.sample(1), self.context.device)
        values = size.sizes(found.model, sample)
        if self.gang.rank == 0:
            values |= latency.eager(found.model.eval(), sample)
        return Measured.of(scored, self.gang.broadcast(values))

    def plan(self, found: Loaded, settings: Training, epochs: int, learn: Objective | None = None, **more: Any) -> Plan:
        """The plan of a training of `found`; `learn` defaults to the task's loss."""
        if settings.batch_size < self.gang.world_size * settings.gradient_accumulation_steps:
            raise MethodRefused(
                f"a global batch of {settings.batch_size} can't be shared among {self.gang.world_size} processes and "
                f"{settings.gradient_accumulation_steps} accumulation steps",
                hint="raise batchSize, or lower gradientAccumulationSteps",
                field=self.field("batchSize"),
            )
        weight = objective.class_weights(settings, self.data.train.labels, len(self.data.labels), self.context.device)
        own = objective.task_objective(self.task, found.description.preprocessing, smoothing=settings.label_smoothing, weight=weight)

        def validation(model: nn.Module) -> dict[str, float]:
            return self.score(Loaded(model, found.description), self.data.validation, intervals=False).values

        return Plan(settings, epochs, self.data.train, self.input.seed, self.task, learn or own, validation, **more)

    def train(self, plan: Plan, state: State) -> None:
        """Collective: see `loop.train`."""
        train(plan, state, self.context, self.gang, self.checkpoints)

    def finish(
        self,
        found: Loaded,
        before: Measured,
        details: dict[str, Any] | None = None,
        *,
        role: str | None = "model",
        after: Measured | None = None,
    ) -> StageOutput:
        """Collective: measure the result (where `after` does not tell it), log before and after, write the bundle, and rebuild it in a
        clean process.

        Raises AccuracyCollapsed when a model that knew something is left at chance, ParityFailed when the bundle answers differently.
        """
        after = after or self.measure(found)
        self.refuse_collapse(before, after)
        figures = dict(after.values)
        if role is not None and self.context.is_source(role):
            figures |= {SOURCE_PREFIX + name: value for name, value in before.values.items()}
        self.context.events.metrics({f"before/{name}": value for name, value in before.values.items()})
        self.context.events.metrics({f"test/{name}": value for name, value in after.values.items()})
        skipped = {split: {"count": len(paths), "first": paths[0]} for split, paths in self.data.unreadable.items() if paths}
        told = after.details | {"unreadable": skipped, "before": {"metrics": before.values, **before.details}} | (details or {})
        folder = self.write(found, after) if self.gang.rank == 0 else None
        if folder is not None:
            source = before.predictions if role is not None and self.context.is_source(role) else None
            predictions.write(folder, {predictions.OWN: after.predictions, predictions.SOURCE: source})
        self.gang.barrier()
        return StageOutput(folder, figures, told)

    def write(self, found: Loaded, after: Measured) -> Path:
        """Write and prove the bundle (rank 0)."""
        folder = self.context.scratch / "bundle"
        step = {"stage": self.input.name, "kind": self.input.kind, "job": self.input.job.name, "seed": self.input.seed}
        update = {"metrics": after.values, "lineage": [*found.description.lineage, step]}
        described: Description = found.description.model_copy(update=update)
        bundle.write(folder, found.model, described)
        samples, _ = self.data.validation.read(torch.arange(min(reload.SAMPLES, len(self.data.validation))))
        inputs = described.preprocessing(samples)
        reload.prove(folder, found.model, inputs, self.context.scratch)
        return folder

    def refuse_collapse(self, before: Measured, after: Measured) -> None:
        """A stage has failed that leaves at chance a model that was clearly above it, or that it was to teach from nothing."""
        name = judged_by(self.input.task)
        chance = self.task.chance(self.data.test.labels, self.data.labels)
        near, knowing = chance + KNOWS / 2 * (1 - chance), chance + KNOWS * (1 - chance)
        if chance:
            near, knowing = min(1.5 * chance, near), min(2 * chance, knowing)
        (least, _), (low, high) = (self.accuracy_between(side, name) for side in (before, after))
        rises = name in HIGHER_IS_BETTER
        guessed = chance if rises else 1 - chance
        if least > knowing and low <= chance and self.task.accuracy(after.values) < near:
            told = (
                f"{name} {'fell' if rises else 'rose'} from {before.values[name]:.3f} to {after.values[name]:.3f}, chance is {guessed:.3f}"
            )
        elif self.input.kind == "fineTune" and high < near:
            told = f"nothing was learned: {name} is {after.values[name]:.3f}, chance {guessed:.3f}"
        else:
            return
        raise AccuracyCollapsed(told, hint="change learningRate, lower pruningRatio, or train longer", field=self.field())

    def accuracy_between(self, side: Measured, name: str) -> tuple[float, float]:
        """The 95 % interval of a figure, as accuracy."""
        low, high = sorted(float(self.task.accuracy({name: end})) for end in side.details["intervals"][name])
        return low, high


def open_bench(context: StageContext, kind: type[Spec]) -> tuple[Bench, Spec]:
    """The bench of a stage, and what the manifest says of it."""
    assert context.input.stage is not None
    spec = context.input.stage.spec
    assert isinstance(spec, kind)
    return Bench(context), spec


def flat(tree: dict[str, Any], prefix: str = "", leave: tuple[str, ...] = ()) -> dict[str, Any]:
    """Nested settings by dotted names, as MLflow keeps them."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if name in leave:
            continue
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
