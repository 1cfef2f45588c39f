"""quantize: fewer bits, by the target engine's own quantizer. The bundle keeps its float weights and a recipe (mode, scheme, what is left
alone, the activations' ranges); `export` lowers by that recipe. The stage's figures are those of the quantized graph in ONNX Runtime."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kompress_api.errors import Interrupted, MethodRefused
from kompress_api.stages.export import Device, Target
from kompress_api.stages.quantize import Quantize, QuantizeMode
from kompress_api.stages.stage import Stage
from kompress_jobs import registry
from kompress_jobs.bench import Bench, Measured, open_bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import Loaded, redescribed
from kompress_jobs.evaluation.on_engine import LEAST_SAMPLES, Calibration, real_inputs, score
from kompress_jobs.exporters import onnx as exporter
from kompress_jobs.loading import assemble
from kompress_jobs.measure import latency
from kompress_jobs.modules import capture, qat
from kompress_jobs.modules.structure import is_within
from kompress_jobs.quantizers import Recipe, recipe_of
from kompress_jobs.rehearsal.rehearse import Room
from kompress_jobs.training.objective import task_objective
from kompress_jobs.training.refusals import refuse_rounded
from kompress_jobs.training.state import build_state

ITERATIONS, WARMUP = 100, 10
"""Of the latency beside the float graph: a hint; a goal's figure is the export's."""


def run(context: StageContext) -> StageOutput:
    """Train with rounding where that is asked for, find the ranges, quantize, and measure beside the float graph."""
    bench, spec = open_bench(context, Quantize)
    refuse(spec, samples=len(bench.data.train), field=bench.field())
    found = bench.take("model", "Keep")
    before = bench.before("model", found)
    if spec.training is not None:
        train(bench, spec, found)
    floats = bench.measure(found) if spec.training is not None else before
    recipe, scored, details = bench.alone(lambda: quantize(bench, spec, found)) or ({}, Measured({}, {}), {})
    recipe, values, told, details = bench.gang.broadcast((recipe, scored.values, scored.details, details))
    after = Measured(floats.values | values, floats.details | told, scored.predictions)
    return bench.finish(redescribed(found, quantization=recipe), before, details, after=after)


def train(bench: Bench, spec: Quantize, found: Loaded) -> None:
    """Collective: quantization-aware training."""
    assert spec.training is not None
    found.model.requires_grad_(True)
    names = qat.prepare(found.model, spec.ignore, per_channel=spec.per_channel)
    state = build_state(found.model, spec.training, sample=found.sample())
    saved = bench.checkpoints.newest()
    if saved is not None:
        bench.checkpoints.restore(saved, state)
    bench.train(bench.plan(found, spec.training, spec.training.epochs), state)
    qat.remove(found.model, names)


def quantize(bench: Bench, spec: Quantize, found: Loaded) -> tuple[Recipe, Measured, dict[str, Any]]:
    """The recipe, the quantized graph's figures, and what else the manifest keeps (rank 0)."""
    quantizer = registry.load("quantizers", exporter.QUANTIZER, field=bench.field())
    folder = bench.context.scratch / "quantize"
    folder.mkdir(parents=True, exist_ok=True)
    plain, target = folder / "float.onnx", folder / "quantized.onnx"
    bench.context.events.progress(0, 3, "lowering")
    exporter.lower(found.model.cpu().eval(), found.description.preprocessing, plain, batch=None, metadata={})
    bench.context.events.progress(1, 3, "calibration")
    recipe = quantizer.calibrate(plain, recipe_of(spec, exporter.QUANTIZER), Calibration(bench, found, spec.calibration.num_samples))
    quantizer.apply(plain, target, recipe)
    bench.context.events.progress(2, 3, "figures")
    threads = (spec.target or Target()).threads
    scored = score(bench, exporter.open_engine(target, threads), found, None)
    speed = compared(bench, found, plain, target, threads)
    details: dict[str, Any] = {"speedup": speed["speedup"], "floatSizeBytes": plain.stat().st_size}
    if spec.sensitivity:
        details["sensitivity"] = sensitivity(bench, found, plain, recipe, quantizer, folder)
    values = scored.values | {"modelSizeBytes": float(target.stat().st_size), "latencyP50Ms": speed["latencyP50Ms"]}
    return recipe, dataclasses.replace(scored, values=values), details


def compared(bench: Bench, found: Loaded, plain: Path, target: Path, threads: int) -> dict[str, Any]:
    """Latency of both graphs at batch 1, interleaved."""
    inputs = real_inputs(bench, found, 1)
    engines = {"float": exporter.open_engine(plain, threads), "quantized": exporter.open_engine(target, threads)}
    runs = {name: (lambda engine=engine: engine(inputs)) for name, engine in engines.items()}
    taken = latency.interleaved(runs, warmup=WARMUP, iterations=ITERATIONS)
    return latency.summarize(taken["quantized"], 1) | {"speedup": latency.speedup(taken["float"], taken["quantized"])}


def sensitivity(bench: Bench, found: Loaded, plain: Path, recipe: Recipe, quantizer: Any, folder: Path) -> list[dict[str, Any]]:
    """What it brings to leave one layer alone, on validation: the layers that suffer most come first."""
    split, target = bench.data.validation, folder / "one.onnx"

    def loss(ignore: list[str]) -> float:
        if bench.context.stop.requested:
            raise Interrupted("stopped from outside while layers were tried", hint="start the job again")
        quantizer.apply(plain, target, recipe | {"ignore": [*recipe["ignore"], *ignore]})
        return score(bench, exporter.open_engine(target, 1), found, None, split).values["loss"]

    whole = loss([])
    layers = [name for name, module in found.model.named_modules() if isinstance(module, qat.LAYERS)]
    gains = [{"layer": name, "lossSaved": whole - loss([name])} for name in layers if not is_within(name, recipe["ignore"])]
    return sorted(gains, key=lambda entry: -entry["lossSaved"])  # type: ignore[arg-type, operator]


def refuse(spec: Quantize, *, samples: int | None, field: str) -> None:
    """Raise MethodRefused for what the target's engine can't run, or what would say too little."""
    if spec.target is not None and spec.target.device is not Device.CPU:
        raise MethodRefused(
            "quantized graphs are run by ONNX Runtime and OpenVINO, on the CPU here",
            hint="use device CPU; for a GPU export TorchExport in precision FP16",
            field=f"{field}.target.device",
        )
    registry.load("quantizers", exporter.QUANTIZER, field=field).refuse(spec, field=field)
    if spec.training is not None:
        refuse_rounded(spec.training, field=f"{field}.training")
    if spec.mode in (QuantizeMode.STATIC, QuantizeMode.QAT):
        wanted = spec.calibration.num_samples if samples is None else min(spec.calibration.num_samples, samples)
        if wanted < LEAST_SAMPLES:
            raise MethodRefused(
                f"{wanted} samples are too few to find the ranges of activations, at least {LEAST_SAMPLES} are needed",
                hint="raise calibration.numSamples" if spec.calibration.num_samples < LEAST_SAMPLES else "give train more samples",
                field=f"{field}.calibration.numSamples",
            )


def rehearse(stage: Stage, inputs: Mapping[str, Loaded], room: Room, *, field: str) -> Loaded:
    """See `rehearsal`: the graph is captured; nothing is calibrated."""
    spec = stage.spec
    assert isinstance(spec, Quantize)
    refuse(spec, samples=None, field=field)
    found = assemble.with_labels(inputs["model"], room.data, "Keep", field=field)
    capture.require(found.model.eval(), found.description.preprocessing, None, form="ONNX", field=field)
    if spec.training is not None:
        found.model.requires_grad_(True)
        names = qat.prepare(found.model, spec.ignore, per_channel=spec.per_channel)
        learn = task_objective(room.task, found.description.preprocessing, smoothing=0.0, weight=None)
        room.step(found, learn, spec.training, field=f"{field}.training")
        qat.remove(found.model, names)
    return redescribed(found, quantization=recipe_of(spec, exporter.QUANTIZER))
