"""A stage's files as MLflow keeps a model: beside an MLmodel that says what the model takes and gives.

An ONNX model gets MLflow's own flavor (`mlflow.pyfunc.load_model` runs it); a bundle is kept as it is, with its description
as the flavor `kompress`.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kompress_api.errors import InvalidManifest
from kompress_jobs.storage.artifacts import MEASUREMENTS

DESCRIPTIONS = "export.json", "bundle.json"
"""What stages say of their files (`stages/export.py`, `description.py`); an artifact holds one of them."""


def pack(folder: Path, target: Path) -> Path:
    """A stage's folder as an MLflow model: its files beside an MLmodel with signature."""
    name = next((name for name in DESCRIPTIONS if (folder / name).exists()), None)
    if name is None:
        raise InvalidManifest(
            f"{folder} holds none of {', '.join(DESCRIPTIONS)}", hint="register the artifact of a stage that makes a model"
        )
    described = parse((folder / name).read_bytes())
    if (first := first_file(described)) and first["type"] == "ONNX":
        import mlflow.onnx
        import onnx

        graph = onnx.load(str(folder / first["file"]))
        rest = [str(path) for path in sorted(folder.iterdir()) if path.name not in (first["file"], MEASUREMENTS)]
        about = {"signature": signature(described), "metadata": metadata(described)}
        mlflow.onnx.save_model(graph, str(target), pip_requirements=["onnxruntime"], extra_files=rest, **about)
        return target
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(MEASUREMENTS))  # tokenizers of an ensemble lie in folders of their own
    write_mlmodel(target, name, described)
    return target


def write_mlmodel(target: Path, description: str, described: Mapping[str, Any]) -> None:
    """The MLmodel of files that MLflow itself can't run, beside their description."""
    import mlflow.models

    model = mlflow.models.Model(signature=signature(described), metadata=metadata(described))
    model.add_flavor("kompress", version=1, description=description)
    model.save(str(target / "MLmodel"))


def parse(description: bytes) -> dict[str, Any]:
    """What a stage says of its files. Its names are in camelCase, as everywhere in JSON."""
    found: dict[str, Any] = json.loads(description)
    return found


def first_file(described: Mapping[str, Any]) -> dict[str, Any] | None:
    """The export's first file; None of a bundle."""
    return next(iter(described.get("files", [])), None)


def signature(described: Mapping[str, Any]) -> Any:
    """What the model takes and gives, as MLflow's ModelSignature."""
    import numpy
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    batch = (first_file(described) or {}).get("batch") or -1
    inputs = [TensorSpec(numpy.dtype(entry["dtype"]), (batch, *entry["shape"][1:]), entry["name"]) for entry in described["inputs"]]
    frames = (-1,) if described.get("ctc") else ()
    scores = TensorSpec(numpy.dtype("float32"), (batch, *frames, len(described["labels"])), "scores")
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([scores]))


def metadata(described: Mapping[str, Any]) -> dict[str, Any]:
    """What MLflow shows of the model beside its signature."""
    told = {"labels": described["labels"], "preprocessing": described["preprocessing"], "lineage": described.get("lineage", [])}
    return told | ({"ctc": True} if described.get("ctc") else {})
