"""The DAG of a job: what each stage takes in, in which order stages can run, and what the goals compare with."""

import dataclasses
from collections.abc import Sequence

from kompress_api.job import CompressionJobSpec
from kompress_api.names import SOURCE
from kompress_api.stages.stage import COMPRESSING, Stage


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a stage.

    `role` says what for: `model` (what the stage changes), `teacher0`, `teacher1`, ... `model0`, `model1`, ... (fuse), `base`,
    `baseline` (export). `stage` is a stage's name, or `source`.
    """

    role: str
    stage: str


def baseline_of(spec: CompressionJobSpec) -> str:
    """`spec.baseline`, or the last fineTune before the first compressing stage, or `source`."""
    if spec.baseline is not None:
        return spec.baseline
    found = SOURCE
    for stage in spec.stages:
        if stage.kind in COMPRESSING:
            break
        if stage.kind == "fineTune":
            found = stage.name
    return found


def inputs_of(spec: CompressionJobSpec, stage: Stage) -> tuple[Input, ...]:
    """What a stage takes in; the first is the one that goals' losses are attributed along."""
    found: list[Input] = []
    if stage.fuse is not None:
        found += [Input(f"model{i}", model.from_) for i, model in enumerate(stage.fuse.models)]
        if stage.fuse.base is not None:
            found.append(Input("base", stage.fuse.base))
    elif stage.distill is not None:
        found += [Input(f"teacher{i}", teacher.from_) for i, teacher in enumerate(stage.distill.teachers)]
        if stage.from_ is not None:
            found.append(Input("model", stage.from_))
    else:
        found.append(Input("model", stage.from_ or _above(spec.stages, stage)))
    if stage.export is not None and baseline_of(spec) != stage.name:
        found.append(Input("baseline", baseline_of(spec)))
    return tuple(found)


def _above(stages: Sequence[Stage], stage: Stage) -> str:
    index = next(i for i, other in enumerate(stages) if other.name == stage.name)
    return stages[index - 1].name if index else SOURCE


def depends_on(spec: CompressionJobSpec, stage: Stage) -> frozenset[str]:
    """Names of the stages that must have succeeded before this one may start."""
    return frozenset(entry.stage for entry in inputs_of(spec, stage)) - {SOURCE}


def chain(spec: CompressionJobSpec, stage: str) -> tuple[str, ...]:
    """From the baseline (first) to `stage` (last) along first inputs; empty where that way does not lead to the baseline."""
    stages = {entry.name: entry for entry in spec.stages}
    baseline = baseline_of(spec)
    walked = [stage]
    while walked[-1] != baseline:
        if walked[-1] == SOURCE:
            return ()
        walked.append(inputs_of(spec, stages[walked[-1]])[0].stage)
    return tuple(reversed(walked))
