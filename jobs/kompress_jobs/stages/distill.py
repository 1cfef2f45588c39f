"""distill: a student learns what teachers know: loss = (1 - alpha) * task + alpha * (what the losses say).

What is imitated is the losses' business (`losses/`), T^2 * KL(teacher || student) where nothing else is asked for. Without augmentation
the teachers answer every sample once and are not asked again (`distillation/teacher_cache.py`), unless what happens inside them is
imitated; with it they see the very sample that the student sees.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from kompress_api.errors import LabelMismatch, MethodRefused
from kompress_api.stages.distill import Distill
from kompress_api.stages.stage import Stage
from kompress_jobs import registry
from kompress_jobs.bench import Bench, open_bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import Loaded, redescribed
from kompress_jobs.distillation import taps, teacher_cache
from kompress_jobs.distillation.teacher_cache import Answers
from kompress_jobs.granularities import layer
from kompress_jobs.loading import assemble
from kompress_jobs.modules import layout
from kompress_jobs.rehearsal.rehearse import Room
from kompress_jobs.samples import place
from kompress_jobs.training.batches import Batch
from kompress_jobs.training.objective import class_weights, task_loss
from kompress_jobs.training.refusals import refuse
from kompress_jobs.training.state import build_state


def run(context: StageContext) -> StageOutput:
    """Train the student and write its bundle; `before` are the first teacher's figures."""
    bench, spec = open_bench(context, Distill)
    refuse(spec, field=bench.field())
    teachers = [bench.take(f"teacher{index}", "Keep") for index in range(len(spec.teachers))]
    student = take_student(bench, spec, teachers[0])
    require_one_label_map(teachers, student, field=bench.field())
    for teacher in teachers:
        layout.channels_last(teacher.model, teacher.sample())
    before = bench.before("teacher0", teachers[0])
    warn_of_size(bench, teachers, student)
    student.model.requires_grad_(True)
    weight = class_weights(spec, bench.data.train.labels, len(bench.data.labels), context.device)
    lesson = Lesson(spec, bench.task, teachers, student, weight, context.device, field=bench.field())
    state = build_state(lesson.pupil, spec, fresh=lesson.fresh, sample=student.sample())
    saved = bench.checkpoints.newest()
    if saved is not None:
        bench.checkpoints.restore(saved, state)
    online = "what happens inside the teachers is imitated" if lesson.looks_inside else teacher_cache.why_online(spec, bench.task)
    details: dict[str, Any] = {"pairs": lesson.told_pairs, "online": online}
    if not online:
        details["answers"] = lesson.remember([teacher_cache.answers(bench, teacher, f"teacher{i}") for i, teacher in enumerate(teachers)])
    bench.train(bench.plan(student, spec, spec.epochs, lesson.objective), state)
    lesson.close()
    return bench.finish(student, before, details, role="teacher0")


def take_student(bench: Bench, spec: Distill, teacher: Loaded) -> Loaded:
    """A new model of `student`, the first teacher with fewer layers, or the stage's own input. A bundle must know the data's labels
    already."""
    if spec.keep_layers:
        return shortened(teacher, spec.keep_layers, field=bench.field("keepLayers"))
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


def shortened(teacher: Loaded, blocks: Sequence[int], *, field: str) -> Loaded:
    """A copy of the teacher with only these of its blocks; what it was quantized by does not fit the copy."""
    model = copy.deepcopy(teacher.model)
    change = layer.keep(model, teacher.sample(), blocks, field=field)
    return redescribed(Loaded(model, teacher.description), history=[*teacher.description.history, change], quantization=None)


def require_one_label_map(teachers: Sequence[Loaded], student: Loaded, *, field: str) -> None:
    """Raise LabelMismatch unless all mean the same class by the same output."""
    own = student.description.labels
    for index, teacher in enumerate(teachers):
        theirs = teacher.description.labels
        if theirs != own:
            raise LabelMismatch(
                f"teachers[{index}] knows {len(theirs)} labels ({', '.join(theirs[:5])}, ...), the student {len(own)} "
                f"({', '.join(own[:5])}, ...)",
                hint="use a student with the teachers' labels, or an architecture of a library, which gets a head for them",
                field=f"{field}.student",
            )


def warn_of_size(bench: Bench, teachers: Sequence[Loaded], student: Loaded) -> None:
    """A student may be larger than its teachers, but hardly ever should be."""

    def size(found: Loaded) -> int:
        return sum(parameter.numel() for parameter in found.model.parameters())

    largest, own = max(size(teacher) for teacher in teachers), size(student)
    if own > largest:
        bench.context.events.warning(f"the student has {own:,} parameters, its largest teacher {largest:,}: nothing gets smaller")


class Pupil(nn.Module):
    """The student with the projectors through which its layers are compared; they learn with it and are left behind."""

    def __init__(self, student: nn.Module, projectors: nn.ModuleList) -> None:
        super().__init__()
        self.student, self.projectors = student, projectors

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.student(*inputs)


@dataclass(frozen=True)
class Pair:
    """One layer of the student that imitates one of a teacher."""

    teacher: int
    own: str
    theirs: str


class Lesson:
    """The stage's loss over its teachers. `pupil` is what is trained."""

    def __init__(
        self,
        spec: Distill,
        task: ModuleType,
        teachers: Sequence[Loaded],
        student: Loaded,
        weight: torch.Tensor | None,
        device: torch.device,
        *,
        field: str,
    ) -> None:
        self.spec, self.task, self.teachers, self.student, self.weight = spec, task, teachers, student, weight
        total = sum(teacher.weight for teacher in spec.teachers)
        self.shares = [teacher.weight / total for teacher in spec.teachers]
        known = [(registry.load("losses", entry.type, field=f"{field}.losses"), entry.weight) for entry in spec.losses]
        self.on_scores = [(module, factor) for module, factor in known if module.ON == "scores"]
        self.on_features = [(module, factor) for module, factor in known if module.ON == "features"]
        self.answers: Sequence[Answers] | None = None
        self.pairs: list[Pair] = []
        self.own_taps: taps.Taps | None = None
        self.their_taps: list[taps.Taps] = []
        self.projectors = nn.ModuleList()
        self.projected: dict[tuple[int, int], int] = {}
        for teacher in teachers:
            teacher.model.requires_grad_(False)
            teacher.model.eval()
        if self.looks_inside:
            if spec.compile:
                raise MethodRefused(
                    "does not go with losses that look inside the student",
                    hint="leave it out, or imitate scores (KD, DKD)",
                    field=f"{field}.compile",
                )
            self._pair(field)
            self._build_projectors(device)
        elif spec.layer_mapping:
            raise MethodRefused(
                "layerMapping is for losses that look at features, and there are none",
                hint="add Feature, Attention or Relational to losses, or leave layerMapping out",
                field=f"{field}.layerMapping",
            )
        self.pupil: nn.Module = Pupil(student.model, self.projectors.to(device)) if self.projectors else student.model

    @property
    def looks_inside(self) -> bool:
        """Whether features are imitated, so that teachers must run along."""
        return bool(self.on_features)

    @property
    def fresh(self) -> set[str]:
        """Parameters of the pupil that brought nothing along."""
        if self.pupil is self.student.model:
            return set(self.student.fresh)
        projectors = {f"projectors.{name}" for name, _ in self.projectors.named_parameters()}
        return projectors | {f"student.{name}" for name in self.student.fresh}

    @property
    def told_pairs(self) -> list[list[str]]:
        """For the manifest: [student's layer, teacher's layer]."""
        return [[pair.own, pair.theirs] for pair in self.pairs]

    def remember(self, answers: Sequence[Answers]) -> list[dict[str, int]]:
        """Do not ask the teachers again, who make room for the student; for the manifest: how much each had to be asked."""
        self.answers = answers
        for teacher in self.teachers:
            teacher.model.cpu()
        return [{"shards": len(entry.shards), "asked": entry.asked} for entry in answers]

    def close(self) -> None:
        """Take the taps off the student again."""
        for tap in [*([self.own_taps] if self.own_taps else []), *self.their_taps]:
            tap.close()

    def objective(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """See `plan.Objective`."""
        device = batch.targets.device
        outputs = model(*place(self.student.description.preprocessing(batch.samples), device))
        scores, imitated = self.task.logits(outputs, batch.samples), torch.zeros((), device=device)
        for index, share in enumerate(self.shares):
            theirs = self._ask(index, batch, device)
            for module, factor in self.on_scores:
                imitated = imitated + share * factor * module.loss(scores, theirs, batch.targets, self.spec.temperature)
        if self.looks_inside:
            imitated = imitated + self._compare()
        if self.spec.alpha == 1:
            return imitated
        own = task_loss(self.task, outputs, batch, weight=self.weight, smoothing=self.spec.label_smoothing)
        return (1 - self.spec.alpha) * own + self.spec.alpha * imitated

    @torch.no_grad()
    def _ask(self, index: int, batch: Batch, device: torch.device) -> torch.Tensor:
        if self.answers is not None:
            return self.answers[index].of(batch.indices).to(device)
        teacher = self.teachers[index]
        outputs = teacher.model(*place(teacher.description.preprocessing(batch.samples), device))
        scores: torch.Tensor = self.task.logits(outputs, batch.samples)
        return scores

    def _compare(self) -> torch.Tensor:
        assert self.own_taps is not None
        total = torch.zeros(())
        for place_of_pair, pair in enumerate(self.pairs):
            own, theirs = self.own_taps.found[pair.own], self.their_taps[pair.teacher].found[pair.theirs]
            for place_of_loss, (module, factor) in enumerate(self.on_features):
                index = self.projected.get((place_of_pair, place_of_loss))
                seen = own if index is None else self.projectors[index](own)
                share = self.shares[pair.teacher] * factor / (len(self.pairs) / len(self.teachers))
                total = total.to(own.device) + share * module.loss(seen, theirs)
        return total

    def _pair(self, field: str) -> None:
        own_sample = self.student.sample()
        for index, teacher in enumerate(self.teachers):
            if self.spec.layer_mapping:
                for number, entry in enumerate(self.spec.layer_mapping):
                    where = f"{field}.layerMapping[{number}]"
                    own = taps.resolve(self.student.model, entry.student, field=f"{where}.student")
                    theirs = taps.resolve(teacher.model, entry.teacher, field=f"{where}.teacher")
                    self.pairs.append(Pair(index, own, theirs))
                continue
            found = taps.paired(
                taps.blocks(self.student.model, own_sample), taps.blocks(teacher.model, teacher.sample()), self.spec.patience
            )
            if not found:
                raise MethodRefused(
                    "no layers of the student and its teacher go together by themselves",
                    hint="give layerMapping",
                    field=f"{field}.layerMapping",
                )
            self.pairs += [Pair(index, own, theirs) for own, theirs in found]
        self.own_taps = taps.Taps(self.student.model, [pair.own for pair in self.pairs])
        for index, teacher in enumerate(self.teachers):
            self.their_taps.append(taps.Taps(teacher.model, [pair.theirs for pair in self.pairs if pair.teacher == index]))

    @torch.no_grad()
    def _build_projectors(self, device: torch.device) -> None:
        assert self.own_taps is not None
        self.student.model.eval()(*self.student.sample())
        for teacher in self.teachers:
            teacher.model(*teacher.sample())
        for place_of_pair, pair in enumerate(self.pairs):
            own, theirs = self.own_taps.found[pair.own], self.their_taps[pair.teacher].found[pair.theirs]
            if own.ndim != theirs.ndim:
                raise MethodRefused(
                    f"{pair.own} gives {tuple(own.shape)}, {pair.theirs} {tuple(theirs.shape)}: they can't be compared",
                    hint="map layers of one kind, or imitate scores (KD, DKD)",
                    field="layerMapping",
                )
            for place_of_loss, (module, _) in enumerate(self.on_features):
                if hasattr(module, "projector"):
                    self.projected[(place_of_pair, place_of_loss)] = len(self.projectors)
                    self.projectors.append(module.projector(own, theirs))


def rehearse(stage: Stage, inputs: Mapping[str, Loaded], room: Room, *, field: str) -> Loaded:
    """See `rehearsal`."""
    spec = stage.spec
    assert isinstance(spec, Distill)
    refuse(spec, field=field)
    teachers = [
        assemble.with_labels(inputs[f"teacher{index}"], room.data, "Keep", field=f"{field}.teachers[{index}]")
        for index in range(len(spec.teachers))
    ]
    if spec.keep_layers:
        student = shortened(teachers[0], spec.keep_layers, field=f"{field}.keepLayers")
    elif spec.student is None:
        student = assemble.with_labels(inputs["model"], room.data, "Keep", field=field)
    else:
        student = assemble.load_source(
            spec.student, room.data, room.task_name, room.seed, room.scratch, field=f"{field}.student", head="Keep", role="student"
        )
    require_one_label_map(teachers, student, field=field)
    student.model.requires_grad_(True)
    lesson = Lesson(spec, room.task, teachers, student, None, torch.device("cpu"), field=field)
    room.step(Loaded(lesson.pupil, student.description), lesson.objective, spec, field=field)
    lesson.close()
    return student
