"""How much memory a stage's worker will take at its peak, and how large its artifact will be, told before anything runs.

Of the process it is the resident size; where workers have GPUs, of the GPU. What is known: the weights of all models, the optimizer's
state, what a sample leaves behind for the backward pass (counted by running a few). What is not: how the allocator rounds, what a
library takes for itself, how large an evaluation's intermediate results get. So a forecast is a span: `low` counts only what must be there
at one moment, `high` all that may be there at the same time, once more as much for what is not known, and a reserve.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import psutil
import torch

from kompress_api.job import CompressionJobSpec
from kompress_api.places import Dataset
from kompress_api.stages.fine_tune import FineTune, Strategy
from kompress_api.stages.stage import Stage
from kompress_api.training import Optimizer, Parallelism, Precision, Training
from kompress_jobs import reload
from kompress_jobs.description import Loaded
from kompress_jobs.loading.bundle import weights_bytes
from kompress_jobs.samples import Clips, Samples, count
from kompress_jobs.samples.splits import Data
from kompress_jobs.training.batches import Batch
from kompress_jobs.training.evaluate import BATCH
from kompress_jobs.training.objective import task_objective

MIB = 2**20
RESERVE = 256 * MIB
"""For threads, buffers of libraries, and what is read and sent."""
GPU_RESERVE = 2048 * MIB
"""For a context, the workspaces of cuDNN and cuBLAS, and blocks that the allocator keeps."""
CALIBRATION_BATCH = 64
"""Samples that importances and ranges are found with at once."""
IN_MEMORY = 512 * MIB
"""Most that a folder of images or sound keeps decoded (`data/`)."""
LOWERING = 10
"""Copies of the weights that a lowering may hold: the program, the graph, its file, what optimises it, two engines."""
DESCRIPTION = 4 * MIB
"""Of metrics, lineage, headers, and what was said of each test sample."""
GRAPH = 4 * MIB
"""Of an exported graph beside its weights."""


@dataclass(frozen=True)
class Span:
    """A number: what is likely, and what it will not fall below or exceed."""

    low: int = 0
    likely: int = 0
    high: int = 0


NOTHING = Span()


@dataclass(frozen=True)
class Cost:
    """Bytes that a model takes."""

    weights: int
    kept: int = 0
    """For the backward pass, a sample."""
    widest: int = 0
    """The largest thing that is kept, a sample."""
    described: int = 0
    """Its description, and the files of its preprocessing."""


@dataclass(frozen=True)
class Costs:
    """Of the models that a stage may meet: the smallest, the likely one, the largest."""

    low: Cost
    likely: Cost
    high: Cost


def resident() -> int:
    """Bytes of this process now."""
    return int(psutil.Process().memory_info().rss)


def ground(spec: CompressionJobSpec, stage: Stage, *, start: int, with_libraries: int, held: Span) -> Span:
    """What is there before any model: interpreter, libraries, data. It is told from the rehearsal's own process: its size before the first
    model, its size with the libraries of the source, and its peak until now. On a GPU it is what that takes for itself."""
    if torch.cuda.is_available() or gpus(spec, stage):
        return Span(0, GPU_RESERVE // 4, GPU_RESERVE)
    peak = max(reload.peak_memory_bytes(), with_libraries)
    return Span(start * 9 // 10 + held.low, with_libraries + held.likely, peak + held.high + RESERVE)


def held_by(dataset: Dataset, data: Data, *, files: int, size: int) -> Span:
    """Of the data, beyond the first samples: `files` and `size` are those of the fingerprint."""
    if dataset.format in ("parquet", "arrow") and (data.image_size or data.sample_rate):
        return Span(0, min(size, IN_MEMORY), 2 * IN_MEMORY)
    if dataset.format in ("parquet", "csv", "json", "arrow"):
        return Span(0, 2 * size, 8 * size)
    if not files:
        return Span(0, 0, IN_MEMORY)
    samples, found = data.train.read(torch.arange(1))
    decoded = files * _bytes_of(samples) // max(1, len(found))
    return Span(0, decoded if decoded <= IN_MEMORY else 0, 2 * min(decoded, IN_MEMORY))


def _bytes_of(samples: Samples) -> int:
    if isinstance(samples, list):
        return sum(len(text) for text in samples)
    parts = samples if isinstance(samples, Clips) else (samples,)
    return sum(part.numel() * part.element_size() for part in parts)


def cost_of(found: Loaded, batch: Batch, task: ModuleType) -> Cost:
    """Run a few samples and see what they leave behind; the model is left as it was."""
    asked = [parameter.requires_grad for parameter in found.model.parameters()]
    training = found.model.training
    found.model.eval().requires_grad_(True)
    number = max(1, count(batch.samples))
    try:
        with _watched(found.model) as sizes:
            task_objective(task, found.description.preprocessing, smoothing=0.0, weight=None)(found.model, batch)
    finally:
        found.model.train(training)
        for parameter, flag in zip(found.model.parameters(), asked, strict=True):
            parameter.requires_grad_(flag)
    described = len(str(found.description.dump())) + sum(len(content) for content in found.description.preprocessing.files().values())
    return Cost(weights_bytes(found.model.state_dict()), sum(sizes.values()) // number, max(sizes.values(), default=0) // number, described)


@contextmanager
def _watched(model: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Sizes of the storages that autograd keeps, without those of the weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            sizes[place] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def of_worker(spec: CompressionJobSpec, stage: Stage, taken: Mapping[str, Costs], made: Costs, ground: Span, samples: int) -> Span:
    """The peak of one worker; `taken` are the stage's inputs by role, `samples` the fewest that train has."""
    training, batches = training_of(stage), batches_of(spec, stage, samples)
    # A stage that changes its input has one model of it, a student is one more, an ensemble is made of its members.
    resident = [costs for role, costs in taken.items() if role != "model"] + ([made] if stage.fuse is None else [])
    before = taken.get("model", made)
    low = sum(min(costs.low.weights, costs.likely.weights) for costs in resident)
    likely = sum(costs.likely.weights for costs in resident)
    high = sum(costs.high.weights for costs in [*taken.values(), made])
    evaluation = BATCH * 2 * made.likely.widest
    extreme = BATCH * 4 * max(costs.high.widest for costs in [*taken.values(), made])
    largest = max(before.high.weights, made.high.weights)
    extreme += 3 * largest  # a copy that is tried or proven, its file, its bytes on their way
    if stage.kind in ("export", "quantize"):
        extreme += LOWERING * high
        likely += 3 * likely
    if stage.kind == "prune":
        extreme += 2 * largest + CALIBRATION_BATCH * 2 * before.high.kept
    if training is not None:
        moments = 2 if training.optimizer is not Optimizer.SGD else int(training.momentum > 0)
        copies = int(training.ema is not None) + int(training.early_stopping is not None)
        low += _low_of_training(spec, stage, training, made.low, moments, batches.low)
        state = made.likely.weights * (1 + moments + copies) + made.likely.kept * batches.likely
        evaluation = max(evaluation, state)
        rounding = 3 if stage.kind == "quantize" else 1
        extreme += largest * 2 * (1 + moments + copies) + max(before.high.kept, made.high.kept) * batches.high * rounding
    least, most = ground.low + low, ground.high + 2 * (high + extreme)
    return Span(least, min(max(ground.likely + likely + evaluation, least), most), most)


def _low_of_training(spec: CompressionJobSpec, stage: Stage, training: Training, cost: Cost, moments: int, batch: int) -> int:
    """Moments, and either gradients or what is kept for them; of a stage that may freeze weights nothing is certain."""
    own = stage.spec
    if stage.fuse is not None or (isinstance(own, FineTune) and (own.strategy is not Strategy.FULL or own.frozen_modules)):
        return 0
    shared = workers_of(spec, stage).high if training.parallelism is Parallelism.FSDP2 else 1
    weights = cost.weights // shared
    thrifty = training.activation_checkpointing or training.compile or training.precision is not Precision.FP32
    return weights * moments + max(weights, 0 if thrifty else cost.kept * batch)


def training_of(stage: Stage) -> Training | None:
    """What a stage trains by; None where it does not."""
    own: Any = stage.spec
    found = own if isinstance(own, Training) else getattr(own, "recovery", None) or getattr(own, "training", None)
    return found if isinstance(found, Training) else None


def batches_of(spec: CompressionJobSpec, stage: Stage, samples: int) -> Span:
    """Of a worker's micro-batch, where train has `samples` at least."""
    training, workers = training_of(stage), workers_of(spec, stage)
    if training is None:
        return NOTHING
    batch, parts = training.batch_size, training.gradient_accumulation_steps
    return Span(min(batch, samples) // (workers.high * parts), batch // (workers.likely * parts), -(-batch // (workers.low * parts)))


def workers_of(spec: CompressionJobSpec, stage: Stage) -> Span:
    """Processes of the gang."""
    processes = said(spec, stage, "processes_per_node")
    each = processes if isinstance(processes, int) else gpus(spec, stage) or max(1, torch.cuda.device_count())
    elastic, nodes = said(spec, stage, "elastic"), said(spec, stage, "nodes") or 1
    least, most = (elastic.min_nodes, elastic.max_nodes) if elastic else (nodes, nodes)
    return Span(least * each, nodes * each, most * each)


def said(spec: CompressionJobSpec, stage: Stage, name: str) -> Any:
    """A field of the runtime that is no map: the stage's own, else the job's."""
    runtimes = [runtime for runtime in (stage.runtime, spec.runtime) if runtime is not None]
    return next((value for runtime in runtimes if (value := getattr(runtime, name)) is not None), None)


def gpus(spec: CompressionJobSpec, stage: Stage) -> int:
    """GPUs of a pod."""
    return sum(int(amount) for name, amount in devices(spec, stage).items() if name.endswith("/gpu"))


def devices(spec: CompressionJobSpec, stage: Stage) -> dict[str, Any]:
    """What the pods of a stage are limited to of extended resources (`vendor/kind`), its own above the job's."""
    blocks = [runtime.resources for runtime in (spec.runtime, stage.runtime) if runtime is not None and runtime.resources is not None]
    return {name: amount for block in blocks for name, amount in block.limits.items() if "/" in name}


def of_artifact(stage: Stage, made: Costs, *, recipe: bool) -> Span:
    """The files of a stage: a bundle, or a graph a format; `recipe`: the model is to be quantized when it is lowered."""
    beside = 2 * made.high.described + DESCRIPTION
    if stage.export is None:
        return Span(made.low.weights, made.likely.weights + made.likely.described, made.high.weights + beside)
    shares = [_shares(form.precision, recipe=recipe) for form in stage.export.formats]
    sides = (made.low, made.likely, made.high)
    low, likely, high = (sum(int(cost.weights * share[side]) for share in shares) for side, cost in enumerate(sides))
    return Span(low, likely + made.likely.described, high + len(shares) * GRAPH + beside)


def _shares(precision: str | None, *, recipe: bool) -> tuple[float, float, float]:
    """A file's size as a share of the weights in float32: folding makes it smaller, weights that were tied may stand there twice."""
    if precision == "FP16":
        return 0.4, 0.5, 1.5
    if precision == "INT8" or (recipe and precision is None):
        return 0.1, 0.3, 1.5
    return 0.8, 1.0, 2.0
