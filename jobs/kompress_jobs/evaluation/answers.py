"""Finished models that answer once more, as their stages measured them: a bundle in PyTorch, an export or a quantized model in its
engine."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from kompress_api.stages.export import Device
from kompress_jobs import registry, reload
from kompress_jobs.description import Description, Loaded
from kompress_jobs.engine import Engine
from kompress_jobs.evaluation.on_engine import scores_of
from kompress_jobs.exporters import onnx as exporter
from kompress_jobs.exporters import open_on
from kompress_jobs.gang import Gang
from kompress_jobs.loading import bundle
from kompress_jobs.samples.splits import Split
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.artifacts import Commit
from kompress_jobs.training.evaluate import predict


@dataclass(frozen=True)
class Answering:
    """A model that is ready."""

    labels: list[str]
    """That its scores count."""
    answer: Callable[[Split], tuple[torch.Tensor, torch.Tensor]]
    """Scores (samples, classes) and positions in the split (samples,)."""


def committed(commit: Commit, folder: Path, task: ModuleType, device: torch.device, serving: Device) -> Answering:
    """The model of a commit; its files come into `folder`. A bundle answers on `device`, an export's first file on `serving`."""
    artifacts.fetch(commit.store, commit.uri, commit.digest, folder)
    if (folder / reload.EXPORT).is_file():
        written = json.loads((folder / reload.EXPORT).read_text(encoding="utf-8"))
        first, known = written["files"][0], {field.alias or name for name, field in Description.model_fields.items()}
        described = Description.model_validate({name: value for name, value in written.items() if name in known})
        described = described.model_copy(update={"preprocessing": described.preprocessing.load(folder)})
        written_by = registry.load("exporters", first["exporter"], field="export.json: exporter")
        return in_engine(open_on(serving, written_by, folder / first["file"], 1), described, first["batch"], task)
    loaded = bundle.read(folder)
    recipe = loaded.description.quantization
    if recipe is None:
        return in_torch(loaded, task, device)
    plain, target = folder / "float.onnx", folder / "quantized.onnx"
    exporter.lower(loaded.model, loaded.description.preprocessing, plain, batch=None, opset=None, metadata={})
    registry.load("quantizers", recipe["quantizer"], field="bundle.json: quantization.quantizer").apply(plain, target, recipe)
    return in_engine(exporter.open_engine(target, 1), loaded.description, None, task)


def in_torch(loaded: Loaded, task: ModuleType, device: torch.device) -> Answering:
    """In this process alone, whatever its gang."""
    described, alone = loaded.description, Gang(0, 1, device)
    loaded.model.to(device)
    return Answering(described.labels, lambda split: predict(loaded.model, split, task, described.preprocessing, alone))


def in_engine(engine: Engine, described: Description, step: int | None, task: ModuleType) -> Answering:
    """`step` is the only batch size that the file takes."""
    return Answering(described.labels, lambda split: scores_of(engine, described.preprocessing, split, step, task))
