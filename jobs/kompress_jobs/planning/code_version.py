"""Which code makes a result: kompress_jobs itself, the libraries that build or lower a model, and the user's own factories.

Another version of any of them may give another model from the same manifest, so the stage key holds this digest. Of libraries
the minor version counts: a patch release mends, and must not make everybody's finished work worthless.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from kompress_api.base import Model
from kompress_api.canonical import digest
from kompress_api.contract import StageInput
from kompress_api.errors import UnknownModel
from kompress_api.job import CompressionJobSpec
from kompress_api.places import Dataset, ModelSource, WeightSource
from kompress_api.stages.stage import Stage

LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "tokenizers",
    "torch-pruning",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "nncf",
)
PYTHON = "python://"


def code_version(job: CompressionJobSpec | StageInput, stage: Stage) -> str:
    """`sha256:...` of all code that makes this stage's result; the same in the preflight and in the stage's own pod."""
    return code_of(job.model, job.dataset, stage)


def code_of(*models: Model) -> str:
    """`sha256:...` of our own code, the libraries, and the factories that these models, data and stages name."""
    factories = sorted(factories_of(*models))
    return digest({"kompress": own_sources(), "libraries": libraries(), "factories": {name: package_sources(name) for name in factories}})


def factories_of(*models: Model) -> set[str]:
    """Top-level packages of every python:// address in models, data and stages."""
    return {address.removeprefix(PYTHON).partition(":")[0].partition(".")[0] for model in models for address in _addresses(model)}


def libraries() -> dict[str, str]:
    """Minor versions, such as {"torch": "2.15"}; a library that is not installed is left out."""
    found = {}
    for name in LIBRARIES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = ".".join(version.split("+")[0].split(".")[:2])
    return found


@functools.cache
def own_sources() -> str:
    """Digest of the sources of kompress_jobs, and of kompress_api, whose models hold the defaults."""
    import kompress_api
    import kompress_jobs

    return digest([_tree(Path(str(package.__file__)).parent) for package in (kompress_jobs, kompress_api)])


@functools.cache
def package_sources(package: str) -> str:
    """Digest of the sources of a package or module that can be imported; nothing is imported. Raises UnknownModel."""
    spec = importlib.util.find_spec(package) if package else None
    if spec is None:
        raise UnknownModel(f"there is no package {package!r} for {PYTHON}{package}", hint="put it into the image, or on PYTHONPATH")
    if spec.submodule_search_locations:
        return digest([_tree(Path(folder)) for folder in spec.submodule_search_locations])
    return digest(_sha256(Path(str(spec.origin))))


def _addresses(model: Model) -> Iterable[str]:
    if isinstance(model, ModelSource | Dataset | WeightSource):
        for text in (model.source, getattr(model, "architecture", None)):
            if text and text.startswith(PYTHON):
                yield text
    for name in type(model).model_fields:
        value = getattr(model, name)
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, Model):
                yield from _addresses(entry)


def _tree(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in sorted(folder.rglob("*.py"))}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
