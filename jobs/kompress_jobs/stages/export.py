"""export: lower a model for its targets, prove in a clean process that it is the same model, and measure it there beside the
baseline, which is lowered the same way. Rank 0 does the work; the others help to evaluate the PyTorch model and wait."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from kompress_api.errors import Interrupted, MethodRefused
from kompress_api.goals import BASELINE_PREFIX, SOURCE_PREFIX, figure_name
from kompress_api.stages.export import Device, Export, Format
from kompress_api.stages.stage import Stage
from kompress_jobs import registry, reload
from kompress_jobs.bench import Bench, Measured, open_bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import Loaded
from kompress_jobs.engine import Engine
from kompress_jobs.evaluation.on_engine import BATCH, LEAST_SAMPLES, Calibration, arrays, filled, real_inputs, score
from kompress_jobs.exporters import open_on
from kompress_jobs.loading import assemble, bundle
from kompress_jobs.measure import latency, parity, predictions
from kompress_jobs.measure.parity import Array
from kompress_jobs.measure.predictions import Predictions
from kompress_jobs.modules import capture
from kompress_jobs.modules.half import halved
from kompress_jobs.rehearsal.rehearse import Room
from kompress_jobs.samples import count, pick

PYTORCH_PREFIX = "pytorch."
Place = tuple[str, str, int]
"""Format, target, batch size."""


@dataclass
class Lowered:
    """A model in one format."""

    path: Path
    figures: dict[str, float] = field(default_factory=dict)
    """Those that do not depend on target and batch size."""
    at: dict[Place, dict[str, float]] = field(default_factory=dict)
    """Those that do."""


def run(context: StageContext) -> StageOutput:
    """Write `export.json` and one file a format."""
    bench, spec = open_bench(context, Export)
    exporters = {form.type: registry.load("exporters", form.type, field=bench.field("formats")) for form in spec.formats}
    refuse(spec, exporters, field=bench.field())
    refuse_unseen(spec, field=bench.field())
    models = {role: bench.take(role, "Keep") for role in ("model", "baseline")}
    refuse_recipe(spec, exporters, models["model"], samples=len(bench.data.train), field=bench.field())
    for exporter in exporters.values() if bench.gang.rank == 0 else ():
        if words := getattr(exporter, "DEPRECATED", ""):
            context.events.warning(words)
    measured = {role: bench.before(role, found) for role, found in models.items()}
    return bench.alone(lambda: export(bench, spec, exporters, models, measured)) or StageOutput()


def stopped_from_outside() -> Interrupted:
    """Nothing is kept of an export that did not end."""
    return Interrupted("stopped from outside before the export was done", hint="start the job again: it exports anew")


def export(
    bench: Bench, spec: Export, exporters: dict[Any, ModuleType], models: dict[str, Loaded], measured: dict[str, Measured]
) -> StageOutput:
    """Lower, prove and measure both models in every format."""
    scratch = bench.context.scratch
    folders = {"model": scratch / "export", "baseline": scratch / "baseline"}
    pairs: list[dict[str, Lowered]] = []
    details: dict[str, Any] = {"parity": {}, "speedups": [], "intervals": {}, "pytorch": measured["model"].details}
    said: dict[str, Predictions | None] = {}
    for index, form in enumerate(spec.formats):
        if bench.context.stop.requested:
            raise stopped_from_outside()
        bench.context.events.progress(index, len(spec.formats), f"lowering to {form.type}")
        exporter, stem = exporters[form.type], stem_of(index)
        lowered = {}
        for role, found in models.items():
            folders[role].mkdir(parents=True, exist_ok=True)
            path = folders[role] / f"{stem}{exporter.SUFFIX}"
            asked = form if role == "model" else for_baseline(form)
            lower(bench, exporter, found, path, asked, spec)
            lowered[role] = Lowered(path, {"modelSizeBytes": bytes_of(path)})
            describe(bench, folders[role], found, spec, exporters, measured[role])
            prove(bench, lowered[role], found, spec, asked, details if role == "model" else None)
            scored = judge(bench, exporter, lowered[role], found, spec, form)
            lowered[role].figures |= {name: measured[role].values[name] for name in ("parameters", "macs")}
            name = predictions.OWN if role == "model" else predictions.BASELINE
            said[name if index == 0 else predictions.of_format(name, form.type)] = scored.predictions
            if role == "model" and index == 0:
                details |= scored.details
        time(bench, spec, form, exporter, lowered, models, details)
        pairs.append(lowered)
    metrics = figures(pairs)
    metrics |= {PYTORCH_PREFIX + name: value for name, value in measured["model"].values.items()}
    if bench.context.is_source("model"):
        metrics |= {SOURCE_PREFIX + name: value for name, value in measured["model"].values.items()}
        said[predictions.SOURCE] = measured["model"].predictions
    predictions.write(folders["model"], said)
    bench.context.events.metrics({f"test/{name}": value for name, value in metrics.items() if "." not in name and "@" not in name})
    bench.context.events.metrics({f"before/{name}": value for name, value in measured["baseline"].values.items()})
    return StageOutput(folders["model"], metrics, details)


def refuse(spec: Export, exporters: Mapping[Any, ModuleType], *, field: str) -> None:
    """Raise MethodRefused for what has no meaning or is not built."""
    keys = [target.key for target in spec.targets]
    for index, target in enumerate(spec.targets):
        if target.device is Device.GPU:
            refuse_gpu(spec, exporters, field=f"{field}.targets[{index}].device")
        if target.key in keys[:index]:
            raise MethodRefused(
                f"two targets are called {target.key}, and figures go by that name",
                hint="give one of them another name",
                field=f"{field}.targets[{index}].name",
            )
    fixed = spec.targets[0].batch_sizes[0]
    for index, form in enumerate(spec.formats):
        opsets = getattr(exporters[form.type], "OPSETS", ())
        if form.opset is not None and form.opset not in opsets:
            raise MethodRefused(
                f"{form.type.value} can't be written in opset {form.opset}" if opsets else f"{form.type.value} has no opsets",
                hint=f"use one of {opsets[0]} to {opsets[-1]}, or leave it out" if opsets else "leave it out",
                field=f"{field}.formats[{index}].opset",
            )
        if not form.dynamic_batch and any(target.batch_sizes != [fixed] for target in spec.targets):
            raise MethodRefused(
                f"with a fixed batch axis only batch size {fixed} can run, the targets ask for others",
                hint="set dynamicBatch: true, or give every target the same single batch size",
                field=f"{field}.formats[{index}].dynamicBatch",
            )


def refuse_unseen(spec: Export, *, field: str) -> None:
    """Raise MethodRefused for a GPU target where PyTorch sees no GPU."""
    for index, target in enumerate(spec.targets):
        if target.device is Device.GPU and not torch.cuda.is_available():
            raise MethodRefused(
                "PyTorch sees no GPU in this pod",
                hint="ask for one with runtime.resources.limits, and use an image whose PyTorch knows its driver",
                field=f"{field}.targets[{index}].device",
            )


def refuse_gpu(spec: Export, exporters: Mapping[Any, ModuleType], *, field: str) -> None:
    """Raise MethodRefused where a format's engine serves CPUs only."""
    unfit = [form.type.value for form in spec.formats if not hasattr(exporters[form.type], "open_on_gpu")]
    if unfit:
        raise MethodRefused(
            f"the engine of {' and '.join(unfit)} serves on the CPU only",
            hint="export TorchExport for a GPU, and other formats in an export stage of their own",
            field=field,
        )


def step_of(form: Format, spec: Export) -> int | None:
    """The only batch size that the file takes; None: any."""
    return None if form.dynamic_batch else spec.targets[0].batch_sizes[0]


def stem_of(index: int) -> str:
    """Name of a format's file, without its suffix."""
    return f"model{index or ''}"


def bytes_of(path: Path) -> int:
    """Size of a format's file, and of those beside it under the same stem."""
    return sum(entry.stat().st_size for entry in path.parent.glob(f"{path.stem}.*"))


def for_baseline(form: Format) -> Format:
    """How the baseline is lowered: rounding to FP16 is something that the stage does to the model, as a recipe is."""
    return form.model_copy(update={"precision": "FP32"}) if form.precision == "FP16" else form


def lower(bench: Bench, exporter: ModuleType, found: Loaded, path: Path, form: Format, spec: Export) -> None:
    """Write one file; a fixed batch axis takes the first target's first batch size."""
    model = found.model.cpu().eval()
    preprocessing, recipe = found.description.preprocessing, recipe_of(form, found)
    metadata = {"labels": found.description.labels, "preprocessing": preprocessing.dump()}
    batches = Calibration(bench, found, recipe["samples"]) if recipe is not None and is_calibrated(exporter, recipe) else None
    options = {"recipe": recipe, "opset": form.opset, "batches": batches}
    exporter.lower(
        halved(model) if form.precision == "FP16" else model,
        preprocessing,
        path,
        batch=step_of(form, spec),
        metadata=metadata,
        **{name: value for name, value in options.items() if value is not None},
    )


def recipe_of(form: Format, found: Loaded) -> dict[str, Any] | None:
    """How the graph is quantized; None: not at all. Without a precision the bundle decides."""
    return None if form.precision in ("FP32", "FP16") else found.description.quantization


def is_calibrated(exporter: ModuleType, recipe: Mapping[str, Any]) -> bool:
    """Whether the format's own quantizer must see samples."""
    return recipe["mode"] in getattr(exporter, "CALIBRATED", ())


def refuse_recipe(spec: Export, exporters: Mapping[Any, ModuleType], found: Loaded, *, samples: int | None, field: str) -> None:
    """Raise MethodRefused where a format can't do what the model's recipe, or the manifest, asks for. `samples` are those of train, None
    before they are known."""
    for index, form in enumerate(spec.formats):
        recipe, where = recipe_of(form, found), f"{field}.formats[{index}].precision"
        if form.precision == "INT8" and recipe is None:
            raise MethodRefused("the model has no quantization recipe", hint="export from a quantize stage", field=where)
        if recipe is None:
            continue
        exporter = exporters[form.type]
        if getattr(exporter, "QUANTIZER", None) != recipe["quantizer"]:
            raise MethodRefused(
                f"the recipe is for {recipe['quantizer']}, which does not write {form.type.value}",
                hint="set precision: FP32 for this format, or use ONNX",
                field=where,
            )
        if recipe["mode"] not in exporter.MODES:
            raise MethodRefused(
                f"the model was quantized in mode {recipe['mode']}, for which the engine of {form.type.value} has no fast kernels",
                hint=f"quantize in mode {' or '.join(exporter.MODES)}, set precision: FP32 for this format, or use ONNX",
                field=where,
            )
        if not is_calibrated(exporter, recipe):
            continue
        if "samples" not in recipe:
            raise MethodRefused(
                f"the model's recipe does not say how many samples to calibrate {form.type.value} with: an older version made it",
                hint="run its quantize stage again, or use ONNX",
                field=where,
            )
        used = recipe["samples"] if samples is None else min(samples, recipe["samples"])
        if used < LEAST_SAMPLES:
            raise MethodRefused(
                f"{form.type.value} is calibrated with samples of train, at least {LEAST_SAMPLES}, and there are {used}",
                hint="give train more samples, set precision: FP32 for this format, or use ONNX",
                field=where,
            )


def describe(bench: Bench, folder: Path, found: Loaded, spec: Export, exporters: dict[Any, ModuleType], measured: Measured) -> None:
    """export.json: what the files are, what they take, and where they come from."""
    described = found.description
    files = []
    for index, form in enumerate(spec.formats):
        file = f"{stem_of(index)}{exporters[form.type].SUFFIX}"
        exporter = exporters[form.type].__name__.rpartition(".")[2]
        files.append({"file": file, "type": form.type.value, "exporter": exporter, "batch": step_of(form, spec)})
    step = {"stage": bench.input.name, "kind": bench.input.kind, "job": bench.input.job.name, "seed": bench.input.seed}
    written = described.model_copy(update={"lineage": [*described.lineage, step], "metrics": measured.values})
    bundle.write_description(folder / reload.EXPORT, written, files=files)


def judge(bench: Bench, exporter: ModuleType, lowered: Lowered, found: Loaded, spec: Export, form: Format) -> Measured:
    """The file's figures on the test split, on each kind of processor that it is to serve on: the first target's are its own, another
    kind's stand beside the first latency there. What the move between the two costs of quality is their difference."""
    first = {target.device: target for target in reversed(spec.targets)}
    scored = {device: score(bench, open_on(device, exporter, lowered.path, 1), found, step_of(form, spec)) for device in first}
    own = scored.pop(spec.targets[0].device)
    lowered.figures |= own.values
    for device, measured in scored.items():
        target = first[device]
        lowered.at[form.type.value, target.key, target.batch_sizes[0]] |= measured.values
    return own


def prove(bench: Bench, lowered: Lowered, found: Loaded, spec: Export, form: Format, details: dict[str, Any] | None) -> None:
    """Run the file in a clean process for every target, on real validation inputs: its memory at each batch size, and, with `details`,
    its answers; raise ParityFailed when it is not the same model."""
    samples, _ = bench.data.validation.read(torch.arange(min(spec.verify.num_samples, len(bench.data.validation))))
    inputs = found.description.preprocessing(samples)
    if step := step_of(form, spec):
        inputs = filled(inputs, max(1, len(inputs[0]) // step) * step)
    folder, question = lowered.path.parent, arrays(inputs)
    answers = []
    for target in spec.targets:
        asked = {"file": lowered.path.name, "threads": target.threads, "device": target.device, "batch_sizes": target.batch_sizes}
        torch.cuda.empty_cache()  # what this process keeps for later, the clean one needs now
        answers.append(reload.run(folder, question, bench.context.scratch, **asked))
        for size in target.batch_sizes:
            lowered.at[form.type.value, target.key, size] = {"peakMemoryBytes": float(answers[-1].peaks[size])}
    if details is not None:
        with torch.inference_mode():
            repeated = pick(samples, torch.arange(len(question[0])) % count(samples))
            expected = torch.cat(
                [
                    bench.task.logits(found.model(*(part[rows] for part in inputs)), pick(repeated, rows))
                    for rows in torch.arange(len(question[0])).split(BATCH)
                ]
            )
        told: dict[str, dict[str, float]] = {}
        for target, answer in zip(spec.targets, answers, strict=True):
            answered = bench.task.logits(torch.from_numpy(answer.outputs), repeated)
            what = f"{form.type.value} on {target.key}"
            compared = parity.compare(bench.task.rows(expected).numpy(), bench.task.rows(answered).numpy(), spec.verify, what=what)
            rounded = form.precision == "FP16" or recipe_of(form, found) is not None or target.device is Device.GPU  # TF32
            parity.require(compared, spec.verify, rounded=rounded, what=what, field=bench.field())
            told[target.key] = compared.dump()
        details["parity"][form.type.value] = told


def time(
    bench: Bench,
    spec: Export,
    form: Format,
    exporter: ModuleType,
    lowered: dict[str, Lowered],
    models: dict[str, Loaded],
    details: dict[str, Any],
) -> None:
    """Latency of both models at every target and batch size, interleaved in this process."""
    for target in spec.targets:
        engines = {role: open_on(target.device, exporter, entry.path, target.threads) for role, entry in lowered.items()}
        for batch_size in target.batch_sizes:
            if bench.context.stop.requested:
                raise stopped_from_outside()
            inputs = {role: real_inputs(bench, found, batch_size) for role, found in models.items()}
            runs = {role: _bind(engine, inputs[role]) for role, engine in engines.items()}
            taken = latency.interleaved(runs, warmup=spec.benchmark.warmup, iterations=spec.benchmark.iterations)
            place = form.type.value, target.key, batch_size
            for role, seconds in taken.items():
                lowered[role].at[place] |= latency.summarize(seconds, batch_size)
            details["speedups"].append(
                {"format": form.type.value, "target": target.key, "batchSize": batch_size}
                | latency.speedup(taken["baseline"], taken["model"])
            )


def _bind(engine: Engine, inputs: Sequence[Array]) -> Callable[[], Array]:
    return lambda: engine(inputs)


def figures(pairs: list[dict[str, Lowered]]) -> dict[str, float]:
    """Plain names for the first format, target and batch size, `metric@format/target/batch` for the others."""
    found: dict[str, float] = {}
    for role, prefix in (("model", ""), ("baseline", BASELINE_PREFIX)):
        for index, lowered in enumerate(pair[role] for pair in pairs):
            for number, (place, values) in enumerate(lowered.at.items()):
                if index == 0 and number == 0:
                    found |= {prefix + name: value for name, value in (lowered.figures | values).items()}
                else:
                    named = values if index == 0 else lowered.figures | values
                    found |= {prefix + figure_name(name, *place): value for name, value in named.items()}
    return found


def rehearse(stage: Stage, inputs: Mapping[str, Loaded], room: Room, *, field: str) -> Loaded:
    """See `rehearsal`: the model's graph is captured for every format, no file is written."""
    spec = stage.spec
    assert isinstance(spec, Export)
    found = assemble.with_labels(inputs["model"], room.data, "Keep", field=field)
    exporters = {
        form.type: registry.load("exporters", form.type, field=f"{field}.formats[{index}].type") for index, form in enumerate(spec.formats)
    }
    refuse(spec, exporters, field=field)
    refuse_recipe(spec, exporters, found, samples=None, field=field)
    model, preprocessing, captured = found.model.eval(), found.description.preprocessing, set[Any]()
    for index, form in enumerate(spec.formats):
        exporter, half, batch = exporters[form.type], form.precision == "FP16", step_of(form, spec)
        where, given = f"{field}.formats[{index}].{'precision' if half else 'type'}", halved(model) if half else model
        if hasattr(exporter, "rehearse"):
            exporter.rehearse(given, preprocessing, batch=batch, field=where)
        elif (half, batch) not in captured:
            capture.require(given, preprocessing, batch, form=form.type.value, field=where)
            captured.add((half, batch))
    return found
