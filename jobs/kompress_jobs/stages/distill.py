"""distill: a student learns what a teacher knows: loss = (1 - alpha) * task + alpha * T^2 * KL(teacher || student).

What is imitated is the loss's business (`losses/`). Without augmentation the teacher answers every sample once and is not
asked again; with it the teacher sees the very image that the student sees.
"""

from collections.abc import Mapping
from types import ModuleType

import torch
from torch import nn

from kompress_api.errors import LabelMismatch
from kompress_api.stages.distill import Distill
from kompress_api.stages.stage import Stage
from kompress_jobs import assemble, registry
from kompress_jobs.bundle import Loaded
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.engine import Bench
from kompress_jobs.rehearsal import Room
from kompress_jobs.samples import place
from kompress_jobs.training.batches import Batch
from kompress_jobs.training.evaluate import predict
from kompress_jobs.training.loop import Objective
from kompress_jobs.training.objective import class_weights
from kompress_jobs.training.refusals import refuse
from kompress_jobs.training.state import build_state


def run(context: StageContext) -> StageOutput:
    """Train the student and write its bundle; `before` are the teacher's figures."""
    assert context.input.stage is not None
    spec = context.input.stage.spec
    assert isinstance(spec, Distill)
    bench = Bench(context)
    refuse(spec, field=bench.field())
    teacher = bench.take("teacher0", "Keep")
    teacher.model.requires_grad_(False)
    student = take_student(bench, spec)
    require_one_label_map(teacher, student, field=bench.field())
    before = bench.measure(teacher)
    student.model.requires_grad_(True)
    state = build_state(student.model, spec)
    saved = bench.checkpoints.newest()
    if saved is not None:
        bench.checkpoints.restore(saved, state)
    learn = objective(bench, spec, teacher, student)
    bench.train(bench.plan(student, spec, spec.epochs, learn), state)
    return bench.finish(student, before, role="teacher0")


def take_student(bench: Bench, spec: Distill) -> Loaded:
    """A new model of `student`, or the stage's own input. A bundle must know the data's labels already."""
    if spec.student is None:
        return bench.take("model", "Keep")
    found = assemble.load_source(
        spec.student,
        bench.data,
        bench.input.task,
        bench.input.seed,
        bench.context.scratch,
        field=bench.field("student"),
        head="Keep",
        role="student",
    )
    bench.tell(found)
    found.model.to(bench.context.device)
    return found


def require_one_label_map(teacher: Loaded, student: Loaded, *, field: str) -> None:
    """Raise LabelMismatch unless both mean the same class by the same output."""
    theirs, own = teacher.description.labels, student.description.labels
    if theirs != own:
        raise LabelMismatch(
            f"the teacher knows {len(theirs)} labels ({', '.join(theirs[:5])}, ...), the student {len(own)} ({', '.join(own[:5])}, ...)",
            hint="use a student with the teacher's labels, or an architecture of a library, which gets a head for them",
            field=f"{field}.student",
        )


def objective(bench: Bench, spec: Distill, teacher: Loaded, student: Loaded) -> Objective:
    """Collective when the teacher's answers are cached."""
    device = bench.context.device
    weight = class_weights(spec, bench.data.train.labels, len(bench.data.labels), device)
    cached = cache(bench, teacher) if bench.task.DRAWS[spec.augmentation] == 0 and spec.teacher_cache == "Auto" else None
    return imitate(spec, bench.task, teacher, student, weight, cached, field=bench.field())


def imitate(
    spec: Distill,
    task: ModuleType,
    teacher: Loaded,
    student: Loaded,
    weight: torch.Tensor | None,
    cached: torch.Tensor | None,
    *,
    field: str,
) -> Objective:
    """The stage's loss; `cached` are the teacher's scores by position in train, (samples, classes)."""
    imitation = registry.load("losses", spec.losses[0].type, field=f"{field}.losses").loss
    factor = spec.losses[0].weight
    teacher.model.eval()

    @torch.no_grad()
    def teach(batch: Batch) -> torch.Tensor:
        if cached is not None:
            return cached[batch.indices].to(batch.targets.device)
        inputs = place(teacher.description.preprocessing(batch.samples), batch.targets.device)
        scores: torch.Tensor = task.logits(teacher.model(*inputs))
        return scores

    def learn(model: nn.Module, batch: Batch) -> torch.Tensor:
        outputs = model(*place(student.description.preprocessing(batch.samples), batch.targets.device))
        imitated: torch.Tensor = imitation(task.logits(outputs), teach(batch), spec.temperature) * factor
        if spec.alpha == 1:
            return imitated
        own: torch.Tensor = task.loss(outputs, batch.targets, weight=weight, smoothing=spec.label_smoothing)
        return (1 - spec.alpha) * own + spec.alpha * imitated

    return learn


def cache(bench: Bench, teacher: Loaded) -> torch.Tensor:
    """Collective: the teacher's scores of every training sample, (samples, classes), by position in the split."""
    scores, positions = predict(teacher.model, bench.data.train, bench.task, teacher.description.preprocessing, bench.gang)
    found = torch.zeros(len(bench.data.train), scores.shape[1])
    found[positions] = scores
    return found


def rehearse(stage: Stage, inputs: Mapping[str, Loaded], room: Room, *, field: str) -> Loaded:
    """See `rehearsal`."""
    spec = stage.spec
    assert isinstance(spec, Distill)
    refuse(spec, field=field)
    teacher = assemble.with_labels(inputs["teacher0"], room.data, "Keep", field=f"{field}.teachers[0]")
    if spec.student is None:
        student = assemble.with_labels(inputs["model"], room.data, "Keep", field=field)
    else:
        student = assemble.load_source(
            spec.student, room.data, room.task_name, room.seed, room.scratch, field=f"{field}.student", head="Keep"
        )
    require_one_label_map(teacher, student, field=field)
    student.model.requires_grad_(True)
    room.step(student, imitate(spec, room.task, teacher, student, None, None, field=field), field=field)
    return student
