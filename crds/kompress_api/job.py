"""CompressionJob: what a user writes."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, StringConstraints

from kompress_api.base import Model, Rule
from kompress_api.goals import Goal
from kompress_api.names import DEFAULT_RUNTIME, MAX_GOALS, MAX_STAGES, SOURCE, ShortText, StageName
from kompress_api.places import Dataset, ModelSource, Task
from kompress_api.runtime import RuntimeRef, SharedSpec
from kompress_api.stages.stage import Stage


class Evaluation(Model):
    """What the report compares beyond the test split."""

    seeds: Annotated[int, Field(ge=1, le=32)] = 1
    """Times that every training stage is run with another seed, for the spread of its figures."""
    datasets: Annotated[list[Dataset], Field(max_length=8)] = []
    """More data sets that the final model and the baseline are evaluated on."""


def _references(stage: Stage) -> Iterator[str]:
    """Every name that the stage refers to."""
    if stage.from_ is not None:
        yield stage.from_
    if stage.distill is not None:
        yield from (teacher.from_ for teacher in stage.distill.teachers)
    if stage.fuse is not None:
        yield from (model.from_ for model in stage.fuse.models)
        if stage.fuse.base is not None:
            yield stage.fuse.base


def _dangling(spec: "CompressionJobSpec") -> tuple[int, str] | None:
    """The first stage that refers to something that is not above it, and to what."""
    above = {SOURCE}
    for index, stage in enumerate(spec.stages):
        for name in _references(stage):
            if name not in above:
                return index, name
        above.add(stage.name)
    return None


def _dangling_message(spec: "CompressionJobSpec") -> str:
    index, name = _dangling(spec) or (0, "")
    return f"stages[{index}] ({spec.stages[index].name}) refers to {name}, which is neither source nor a stage above it"


_ABOVE = "(%s == 'source' || self.stages.exists(j, t, j < i && t.name == %s))"


def _above(name: str) -> str:
    return _ABOVE % (name, name)


_REFERENCES_HOLD = (
    "self.stages.all(i, s, "
    f"(!has(s.from) || {_above('s.from')})"
    f" && (!has(s.distill) || s.distill.teachers.all(k, {_above('k.from')}))"
    f" && (!has(s.fuse) || (s.fuse.models.all(k, {_above('k.from')}) && (!has(s.fuse.base) || {_above('s.fuse.base')}))))"
)


class CompressionJobSpec(SharedSpec):
    """Make a trained model small and fast: a DAG of stages, goals for its end."""

    runtime_ref: RuntimeRef = RuntimeRef(name=DEFAULT_RUNTIME)
    """Platform defaults; absent: the ClusterCompressionRuntime named `default`, if there is one."""
    task: Task
    """What the model does; decides preprocessing, loss and metrics."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Seed of everything that is drawn."""
    model: ModelSource
    """The model to begin with; stages call it `source`."""
    dataset: Dataset
    """Labelled samples."""
    evaluation: Evaluation = Evaluation()
    """What the report compares beyond the test split."""
    stages: Annotated[list[Stage], Field(min_length=1, max_length=MAX_STAGES)]
    """What is done, in order; `from` makes it a DAG."""
    goals: Annotated[list[Goal], Field(max_length=MAX_GOALS)] = []
    """What the model of the goal's stage must reach, on the test split."""
    baseline: StageName | None = None
    """Stage, or `source`, that goals compare with; absent: the last fineTune before the first compressing stage, else `source`."""
    suspend: bool = False
    """Stop gracefully, and go on when false again."""

    rules = (
        Rule(
            cel="self.stages.all(i, s, !self.stages.exists(j, t, j < i && t.name == s.name))",
            holds=lambda spec: len({stage.name for stage in spec.stages}) == len(spec.stages),
            message="every stage needs a name of its own",
            field="stages",
        ),
        Rule(
            cel=_REFERENCES_HOLD,
            holds=lambda spec: _dangling(spec) is None,
            message="a stage may only refer to source or to a stage above it (from, distill.teachers, fuse.models, fuse.base)",
            field="stages",
        ),
        Rule(
            cel="!has(self.baseline) || self.baseline == 'source' || self.stages.exists(s, s.name == self.baseline)",
            holds=lambda spec: spec.baseline in (None, SOURCE) or any(s.name == spec.baseline for s in spec.stages),
            message="baseline names neither source nor a stage",
            field="baseline",
        ),
        Rule(
            cel="!has(self.goals) || self.goals.all(g, !has(g.stage) || self.stages.exists(s, s.name == g.stage))",
            holds=lambda spec: all(g.stage is None or any(s.name == g.stage for s in spec.stages) for g in spec.goals),
            message="a goal's stage names no stage",
            field="goals",
        ),
        Rule(
            cel="!has(self.goals) || self.goals.all(g, !(g.metric in ['latencyP50Ms', 'latencyP99Ms', 'throughputPerSecond', "
            "'peakMemoryBytes']) || (has(g.stage) ? self.stages.exists(s, s.name == g.stage && has(s.export)) : "
            "has(self.stages[size(self.stages) - 1].export)))",
            holds=lambda spec: all(
                not g.measured_on_target
                or (next(s for s in spec.stages if s.name == g.stage) if g.stage else spec.stages[-1]).export is not None
                for g in spec.goals
                if g.stage is None or any(s.name == g.stage for s in spec.stages)
            ),
            message="a goal on latency, throughput or memory needs an export as its stage (absent: the last stage listed)",
            field="goals",
        ),
    )
    transitions = (
        Rule(
            cel="self.stages == oldSelf.stages && self.task == oldSelf.task && self.model == oldSelf.model && self.dataset == oldSelf.dataset"
            " && self.seed == oldSelf.seed",
            message="task, seed, model, dataset and stages are immutable: create a job of another name (finished stages are reused)",
        ),
        Rule(
            cel="(has(self.goals) ? self.goals : []) == (has(oldSelf.goals) ? oldSelf.goals : [])"
            " && (has(self.baseline) ? self.baseline : '') == (has(oldSelf.baseline) ? oldSelf.baseline : '')"
            " && has(self.output) == has(oldSelf.output) && (!has(self.output) || self.output == oldSelf.output)"
            " && has(self.tracking) == has(oldSelf.tracking) && (!has(self.tracking) || self.tracking == oldSelf.tracking)"
            " && self.runtimeRef == oldSelf.runtimeRef",
            message="goals, baseline, output, tracking and runtimeRef are immutable: create a job of another name (finished stages are reused)",
        ),
    )


JobName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=35)]


class ObjectMeta(Model):
    """The part of Kubernetes' metadata that a manifest for kompress may carry."""

    model_config = {**Model.model_config, "extra": "ignore"}

    name: JobName
    """DNS-1035 label of at most 35 characters."""
    namespace: ShortText | None = None
    """Namespace."""
    labels: dict[str, str] = {}
    """Labels."""
    annotations: dict[str, str] = {}
    """Annotations."""
    uid: ShortText = ""
    """Set by the API server."""
    generation: int = 0
    """Set by the API server."""
    creation_timestamp: ShortText | None = None
    """Set by the API server."""
