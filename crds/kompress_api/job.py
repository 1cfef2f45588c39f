"""CompressionJob: what a user writes."""

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from kompress_api.base import Model, Rule
from kompress_api.goals import Goal
from kompress_api.names import DEFAULT_RUNTIME, MAX_GOALS, MAX_JOB_NAME, MAX_STAGES, SOURCE, ShortText, StageName
from kompress_api.places import Dataset, ModelSource, Task
from kompress_api.runtime import RuntimeRef, SharedSpec
from kompress_api.stages.stage import Stage


class Evaluation(Model):
    """What the report compares beyond the test split."""

    seeds: Annotated[int, Field(ge=1, le=32)] = 1
    """Times that every stage that trains is run from the same inputs, with seed, seed + 1, ..., for the spread of its figures; the first
    one's model goes on. It is so many times as much training."""
    datasets: Annotated[list[Dataset], Field(max_length=8)] = []
    """More data sets that the final model and the baseline are evaluated on, each on its test split. Their labels must be among those of
    spec.dataset. No goal is judged on them."""


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


def _names(spec: "CompressionJobSpec") -> list[str]:
    return [stage.name for stage in spec.stages]


def _dangling(spec: "CompressionJobSpec") -> list[str]:
    """Names of the stages that refer to something that is not above them."""
    above, found = {SOURCE}, []
    for stage in spec.stages:
        if not above.issuperset(_references(stage)):
            found.append(stage.name)
        above.add(stage.name)
    return found


def _above(name: str) -> str:
    return f"({name} == 'source' || self.stages.exists(j, t, j < i && t.name == {name}))"


_REFERENCES_HOLD = (
    f"(!has(s.from) || {_above('s.from')})"
    f" && (!has(s.distill) || s.distill.teachers.all(k, {_above('k.from')}))"
    f" && (!has(s.fuse) || (s.fuse.models.all(k, {_above('k.from')}) && (!has(s.fuse.base) || {_above('s.fuse.base')})))"
)
_DANGLING = "refers to what is neither source nor a stage above it (from, distill.teachers, fuse.models, fuse.base)"
_SAME_NAME = "every stage needs a name of its own, and there are two called"
_NEEDS_EXPORT = "a goal on latency, throughput or memory needs an export as its stage (absent: the last stage listed)"


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
            message=lambda spec: f"{_SAME_NAME} {next(n for n in _names(spec) if _names(spec).count(n) > 1)}",
            message_cel=f"'{_SAME_NAME} %s'.format([self.stages.filter(s, self.stages.exists_one(t, t.name == s.name) == false)[0].name])",
            field="stages",
        ),
        Rule(
            cel=f"self.stages.all(i, s, {_REFERENCES_HOLD})",
            holds=lambda spec: not _dangling(spec),
            message=lambda spec: f"stage {_dangling(spec)[0]} {_DANGLING}",
            message_cel=f"'stage %s {_DANGLING}'.format([self.stages.transformList(i, s, !({_REFERENCES_HOLD}), s.name)[0]])",
            field="stages",
        ),
        Rule(
            cel="self.stages.all(i, s, !has(s.export) || !has(self.baseline) || self.baseline == 'source'"
            " || self.stages.exists(j, t, j < i && t.name == self.baseline))",
            holds=lambda spec: all(
                stage.export is None or spec.baseline in (None, SOURCE, *_names(spec)[:i]) for i, stage in enumerate(spec.stages)
            ),
            message="baseline must stand above every export: an export measures it",
            field="baseline",
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
            message=_NEEDS_EXPORT,
            field="goals",
        ),
    )
    transitions = (
        Rule(
            cel="self.stages == oldSelf.stages && self.task == oldSelf.task && self.model == oldSelf.model"
            " && self.dataset == oldSelf.dataset && self.seed == oldSelf.seed",
            message="task, seed, model, dataset and stages are immutable: create a job of another name, finished stages are reused",
        ),
        Rule(
            cel="(has(self.goals) ? self.goals : []) == (has(oldSelf.goals) ? oldSelf.goals : [])"
            " && (has(self.baseline) ? self.baseline : '') == (has(oldSelf.baseline) ? oldSelf.baseline : '')"
            " && has(self.output) == has(oldSelf.output) && (!has(self.output) || self.output == oldSelf.output)"
            " && has(self.tracking) == has(oldSelf.tracking) && (!has(self.tracking) || self.tracking == oldSelf.tracking)"
            " && self.runtimeRef == oldSelf.runtimeRef",
            message="goals, baseline, output, tracking and runtimeRef are immutable: create a job of another name",
        ),
    )


_JOB_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_RULE = Rule(
    cel=f"self.metadata.name.size() <= {MAX_JOB_NAME} && self.metadata.name.matches('{_JOB_NAME}')",
    holds=lambda meta: len(meta.name) <= MAX_JOB_NAME and re.fullmatch(_JOB_NAME, meta.name) is not None,
    message=f"metadata.name must be a DNS-1035 label (a-z, 0-9, -; a letter first, no - at the end) of at most {MAX_JOB_NAME} characters",
)
"""Of the whole object: CEL sees metadata.name from its root only."""


class ObjectMeta(Model):
    """The part of Kubernetes' metadata that a manifest for kompress may carry."""

    model_config = {**Model.model_config, "extra": "ignore"}

    name: ShortText
    """Name; of a CompressionJob a DNS-1035 label of at most 35 characters."""
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
