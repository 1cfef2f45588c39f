"""evaluation.datasets: what a finished model makes of more data sets (where that is kept: `measurements.py`).

What is asked and missing is measured by rank 0 when the stage has its commit, also where the commit was there already. Samples
are those of each data set's test split; a label that it lacks does not count.
"""

from pathlib import Path
from types import ModuleType

import torch

from kompress_api.errors import Interrupted, KompressError, LabelMismatch, MethodRefused
from kompress_api.job import CompressionJobSpec
from kompress_api.names import SOURCE
from kompress_api.places import Dataset
from kompress_api.stages.export import Device
from kompress_api.stages.fine_tune import FineTune
from kompress_jobs import data, registry
from kompress_jobs.context import StageContext
from kompress_jobs.description import Loaded
from kompress_jobs.evaluation import answers
from kompress_jobs.evaluation.answers import Answering
from kompress_jobs.evaluation.measurements import field_of, place_of
from kompress_jobs.loading import assemble
from kompress_jobs.measure import predictions
from kompress_jobs.measure.predictions import Predictions
from kompress_jobs.planning.fingerprint import fingerprint
from kompress_jobs.planning.plan import Plan, PlannedData
from kompress_jobs.samples.splits import Data, Relabelled, Split
from kompress_jobs.storage.artifacts import Commit
from kompress_jobs.training.evaluate import with_predictions

FIRST_SAMPLES = 64
"""Of each split, that the preflight reads."""
SAMPLES_TRIED = 4


def measure(context: StageContext, commit: Commit, plan: Plan | None) -> None:
    """Measure what is asked of this stage and missing. Raises Interrupted between two measurements; those that were made stay."""
    asked, models = context.input.evaluation.datasets, [predictions.OWN]
    if context.input.baseline == SOURCE and any(entry.stage == SOURCE for entry in context.input.inputs):
        models.append(predictions.SOURCE)
    digests = plan.datasets if plan else [fingerprint(entry, role=f"dataset{index}").digest for index, entry in enumerate(asked)]
    places = {(index, model): place_of(commit, dataset, digests[index], model) for index, dataset in enumerate(asked) for model in models}
    missing = [asking for asking, place in places.items() if commit.store.head(place) is None]
    if not missing:
        return
    task = registry.load("tasks", context.input.task, field="spec.task")
    main = data.load(context.input.dataset, context.scratch) if plan is None or predictions.SOURCE in models else None
    opened: dict[str, Answering] = {}
    for done, (index, name) in enumerate(missing):
        if context.stop.requested:
            raise Interrupted("stopped from outside between two data sets", hint="start the job again: what is measured is kept")
        context.events.progress(done, len(missing), f"evaluation on {asked[index].source}")
        if name not in opened:
            opened[name] = source(context, main, task) if name == predictions.SOURCE else own(context, commit, task)
        said = answered(asked[index], index, opened[name], main or plan.data, task, context.scratch)  # type: ignore[union-attr]
        commit.store.write(places[index, name], predictions.encode(said))
        if name == predictions.OWN:
            context.events.metrics({f"dataset{index}/{metric}": value for metric, value in said.about["metrics"].items()})


def own(context: StageContext, commit: Commit, task: ModuleType) -> Answering:
    """The model that the stage made; an export's where its figures are from, on the first target."""
    stage = context.input.stage
    serving = stage.export.targets[0].device if stage is not None and stage.export is not None else Device.CPU
    return answers.committed(commit, context.scratch / "committed", task, context.device, serving)


def source(context: StageContext, main: Data | None, task: ModuleType) -> Answering:
    """spec.model as the stage took it."""
    told, stage = context.input, context.input.stage
    assert main is not None
    assert stage is not None
    head = stage.spec.head if isinstance(stage.spec, FineTune) else "Keep"
    loaded = assemble.load_source(told.model, main, told.task, told.seed, context.scratch, field="spec.model", head=head)
    return answers.in_torch(loaded, task, context.device)


def answered(dataset: Dataset, index: int, model: Answering, main: Data | PlannedData, task: ModuleType, scratch: Path) -> Predictions:
    """What a model says of each sample, with its figures."""
    found = data.load(fitted(dataset, main), scratch, field=field_of(index))
    numbers = matched(found, model.labels, field=field_of(index))
    split: Split = found.test if found.multi_label else Relabelled(found.test, numbers)
    scores, positions = model.answer(split)
    labels = model.labels
    if found.multi_label:  # of what nobody has looked for there nothing is right or wrong
        scores, labels = scores[:, numbers], found.labels
    scored = task.figures(scores, split.labels[positions], labels)
    said = with_predictions(scored, task, scores, positions, split, labels).predictions
    intervals = {metric: list(interval) for metric, interval in scored.intervals.items()}
    assert said is not None
    return said.named(split, metrics=scored.values, intervals=intervals, samples=scored.samples)


def fitted(dataset: Dataset, main: Data | PlannedData) -> Dataset:
    """With the sizes of spec.dataset where it names none: the models take those."""
    update: dict[str, object] = {}
    if dataset.image_size is None and main.image_size:
        update["image_size"] = main.image_size
    if dataset.clip_seconds is None and main.clip_samples:
        update["clip_seconds"] = main.clip_samples / main.sample_rate
    return dataset.model_copy(update=update)


def matched(found: Data, labels: list[str], *, field: str) -> torch.Tensor:
    """Label of the data set -> that of the model, (labels,), int64; raises LabelMismatch for one that the model does not know."""
    strange = [label for label in found.labels if label not in labels]
    if strange:
        raise LabelMismatch(
            f"the label {strange[0]!r} is none of the {len(labels)} that spec.dataset has ({', '.join(labels[:5])}, ...)",
            hint="give the data set the labels of spec.dataset; some may be missing",
            field=field,
        )
    return torch.tensor([labels.index(label) for label in found.labels])


def rehearse(spec: CompressionJobSpec, main: Data, model: Loaded, task: ModuleType, scratch: Path) -> None:
    """Read the first samples of each data set and let the source model answer some; raises KompressErrors by field path."""
    for index, dataset in enumerate(spec.evaluation.datasets):
        field = field_of(index)
        if main.transcribed:
            raise MethodRefused(
                "data sets are compared sample by sample, which is built for labels, not for transcripts",
                hint="leave datasets out",
                field=field,
            )
        found = data.load(fitted(dataset, main), scratch, field=field, first=FIRST_SAMPLES)
        if found.multi_label != main.multi_label:
            one, several = "one label a sample", "several labels a sample"
            raise MethodRefused(
                f"the data set has {several if found.multi_label else one}, spec.dataset {several if main.multi_label else one}",
                hint="set multiLabel as spec.dataset does",
                field=f"{field}.multiLabel",
            )
        matched(found, main.labels, field=field)
        samples, _ = found.test.read(torch.arange(min(SAMPLES_TRIED, len(found.test))))
        try:
            with torch.no_grad():
                model.model.eval()(*model.description.preprocessing(samples))
        except KompressError:
            raise
        except Exception as error:
            raise MethodRefused(
                f"the model can't answer its samples: {error}", hint="give samples of the kind that spec.dataset has", field=field
            ) from error
