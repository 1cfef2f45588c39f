"""fineTune: adapt a model to the task's data. What learns, and when, is the strategy's business (`strategies/`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from kompress_api.stages.fine_tune import FineTune
from kompress_api.stages.stage import Stage
from kompress_jobs import registry
from kompress_jobs.bench import open_bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import Loaded
from kompress_jobs.loading import assemble
from kompress_jobs.modules import structure
from kompress_jobs.rehearsal.rehearse import Room
from kompress_jobs.strategies import Phase, Subject
from kompress_jobs.training import depth
from kompress_jobs.training.objective import task_objective
from kompress_jobs.training.order import Order
from kompress_jobs.training.refusals import refuse
from kompress_jobs.training.state import build_state


def run(context: StageContext) -> StageOutput:
    """Train the input model, one phase after the other, and write a bundle."""
    bench, spec = open_bench(context, FineTune)
    refuse(spec, field=bench.field())
    found = bench.take("model", spec.head)
    before = bench.before("model", found)
    course = Course.of(found, spec, bench.input.seed, field=bench.field())
    saved = bench.checkpoints.newest()
    first = saved.stage.get("phase", 0) if saved else 0
    lengths = [Order(len(bench.data.train), spec.batch_size, phase.epochs, 0).steps for phase in course.phases]
    start = None
    for number in range(first, len(lengths)):
        phase = course.phases[number]
        phase.apply(found.model)
        state = build_state(found.model, spec, scales=course.scales, fresh=found.fresh, start=start, sample=found.sample())
        if saved and number == first:
            bench.checkpoints.restore(saved, state)
        start = state.start
        progress = {"first_step": sum(lengths[:number]), "all_steps": sum(lengths), "stage_memory": {"phase": number}}
        bench.train(bench.plan(found, spec, phase.epochs, **progress), state)
    course.merge(found)
    return bench.finish(found, before)


@dataclass(frozen=True)
class Course:
    """What the strategy has made of a model."""

    strategy: ModuleType
    phases: list[Phase]
    scales: dict[str, float]
    """Parameter -> factor of the learning rate."""

    @classmethod
    def of(cls, found: Loaded, spec: FineTune, seed: int, *, field: str) -> "Course":
        """Let the strategy prepare the model. Raises MethodRefused for what it can't do with it."""
        sample = found.sample()
        strategy = registry.load("strategies", spec.strategy, field=f"{field}.strategy")
        subject = Subject(found.model, spec, structure.head_of(found.model, sample), sample, seed, field)
        scales = depth.scales(subject.depths, spec.layer_decay) if spec.layer_decay != 1 else {}
        phases = strategy.phases(subject)
        if scales:
            scales = {name: scales[depth.plain(name)] for name, _ in found.model.named_parameters()}
        return cls(strategy, phases, scales)

    def merge(self, found: Loaded) -> None:
        """Leave plain weights behind."""
        if hasattr(self.strategy, "merge"):
            self.strategy.merge(found.model)


def rehearse(stage: Stage, inputs: Mapping[str, Loaded], room: Room, *, field: str) -> Loaded:
    """See `rehearsal`: the last phase, in which all learns that ever does."""
    spec = stage.spec
    assert isinstance(spec, FineTune)
    refuse(spec, field=field)
    found = assemble.with_labels(inputs["model"], room.data, spec.head, field=f"{field}.head")
    course = Course.of(found, spec, room.seed, field=field)
    course.phases[-1].apply(found.model)
    room.step(found, task_objective(room.task, found.description.preprocessing, smoothing=0.0, weight=None), spec, field=field)
    course.merge(found)
    return found
