"""Manifests: YAML files into typed objects, every problem found at once, in the API server's words.

`kubectl apply` and `kompress validate` refuse the same manifests with the same sentence for the same path. What the
command line adds is a guess at what was meant (`did you mean epochs?`), and the line of a YAML error.
"""

import dataclasses
import difflib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kompress_api.base import Model
from kompress_api.job import NAME_RULE, CompressionJobSpec, ObjectMeta
from kompress_api.names import API_VERSION, KIND, RUNTIME_KIND
from kompress_api.runtime import ClusterCompressionRuntimeSpec
from kompress_api.status import CompressionJobStatus

MAX_BYTES = 1 << 20
MAX_NODES = 100_000
Document = dict[str, Any]


class JobMeta(ObjectMeta):
    """Metadata of a CompressionJob, whose name becomes a part of its pods' names."""

    rules = (NAME_RULE,)


class CompressionJob(Model):
    """A manifest, or an object read from a cluster."""

    api_version: Literal["kompress.io/v1alpha1"]
    """kompress.io/v1alpha1."""
    kind: Literal["CompressionJob"]
    """CompressionJob."""
    metadata: JobMeta
    """Name, namespace, labels."""
    spec: CompressionJobSpec
    """What is asked."""
    status: CompressionJobStatus | None = None
    """What became of it; ignored in a manifest."""


class ClusterCompressionRuntime(Model):
    """The platform team's defaults."""

    api_version: Literal["kompress.io/v1alpha1"]
    """kompress.io/v1alpha1."""
    kind: Literal["ClusterCompressionRuntime"]
    """ClusterCompressionRuntime."""
    metadata: ObjectMeta
    """Name."""
    spec: ClusterCompressionRuntimeSpec
    """Defaults."""


Manifest = CompressionJob | ClusterCompressionRuntime
KINDS: dict[str, type[Manifest]] = {KIND: CompressionJob, RUNTIME_KIND: ClusterCompressionRuntime}


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing wrong with a manifest: where, what, and a guess at the cure."""

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message}" + (f" ({self.hint})" if self.hint else "")


class ManifestError(Exception):
    """A manifest that can't be used; `problems` has at least one entry."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load_file(path: pathlib.Path) -> list[Manifest]:
    """Every object of a YAML file. Raises ManifestError with all its problems."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ManifestError([Problem("", f"{path} can't be read: {error.strerror}")]) from error
    return load(data)


def load(data: bytes | str) -> list[Manifest]:
    """Every object of a YAML text. Raises ManifestError with all its problems."""
    documents = read_yaml(data)
    if not documents:
        raise ManifestError([Problem("", "no object in it", "a manifest begins with apiVersion: kompress.io/v1alpha1")])
    found: list[Manifest] = []
    problems: list[Problem] = []
    for document in documents:
        try:
            found.append(parse(document))
        except ManifestError as error:
            problems += error.problems
    if problems:
        raise ManifestError(problems)
    return found


def read_yaml(data: bytes | str) -> list[Document]:
    """The documents of a YAML 1.2 text as JSON values; empty documents are left out."""
    if len(data) > MAX_BYTES:
        raise ManifestError([Problem("", f"{len(data)} bytes are more than the {MAX_BYTES} that a manifest may have")])
    yaml = YAML(typ="safe", pure=True)
    try:
        documents = [document for document in yaml.load_all(data) if document is not None]
    except (YAMLError, UnicodeDecodeError, ValueError) as error:
        raise ManifestError([Problem("", f"no YAML: {' '.join(str(error).split())}")]) from error
    for document in documents:
        if not isinstance(document, dict):
            raise ManifestError([Problem("", f"a manifest is a map, not {type(document).__name__}")])
        _check_values(document)
    return documents


def parse(document: Mapping[str, Any]) -> Manifest:
    """One object. Raises ManifestError with all its problems."""
    version, kind = document.get("apiVersion"), document.get("kind")
    if version != API_VERSION or kind not in KINDS:
        known = " or ".join(KINDS)
        near = _near(str(kind), list(KINDS))
        raise ManifestError([Problem("", f"apiVersion {version!r}, kind {kind!r} is not {API_VERSION}, {known}", near)])
    return _validate(KINDS[kind], document)


def parse_spec(spec: Mapping[str, Any]) -> CompressionJobSpec:
    """The spec of an object read from a cluster. Raises ManifestError; paths begin with `spec`."""
    try:
        return CompressionJobSpec.model_validate_json(json.dumps(spec), strict=True)
    except ValidationError as error:
        raise ManifestError(_problems(error, {"spec": spec}, ("spec",))) from error


def _validate(model: type[Manifest], document: Mapping[str, Any]) -> Manifest:
    try:
        return model.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise ManifestError(_problems(error, document, ())) from error


def _problems(error: ValidationError, document: Mapping[str, Any], prefix: tuple[str, ...]) -> list[Problem]:
    found: dict[str, Problem] = {}
    for details in error.errors(include_url=False):
        location = (*prefix, *details["loc"])
        if details["type"] == "rules":
            path = _path(list(_follow(document, location)))
            broken = [Problem(f"{path}.{field}" if field else path, f"Invalid value: {text}") for field, text in details["ctx"]["broken"]]
            found |= {str(problem): problem for problem in broken}
        else:
            problem = _problem(details, document, location)
            found[problem.path or problem.message] = problem  # of a union the last member speaks
    return list(found.values())


_BOUNDS = {
    "greater_than_equal": ("greater than or equal to", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("less than or equal to", "le"),
    "less_than": ("less than", "lt"),
}
_TYPES = {"int": "integer", "float": "number", "string": "string", "bool": "boolean", "list": "array", "dict": "object", "model": "object"}


def _problem(details: ErrorDetails, document: Mapping[str, Any], location: tuple[str | int, ...]) -> Problem:
    """Tells a pydantic error as kube-apiserver's schema validation would."""
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    steps = list(_follow(document, location))
    path = _path(steps)
    shown = (
        _number(value)
        if isinstance(value, float)
        else json.dumps(value)
        if isinstance(value, str | int | float | bool)
        else _json_type(value)
    )
    if kind == "extra_forbidden":
        return Problem("", f'unknown field "{path}"', _near(str(steps[-1]), _field_names()))
    if kind == "missing":
        return Problem(path, "Required value")
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return Problem(path, f"Invalid value: {shown}: {path} in body should be {words} {_number(context[bound])}")
    if kind == "string_pattern_mismatch":
        return Problem(path, f"Invalid value: {shown}: {path} in body should match '{context['pattern']}'")
    if kind == "string_too_long":
        return Problem(path, f"Too long: may not be more than {context['max_length']} bytes")
    if kind == "string_too_short":
        return Problem(path, f"Invalid value: {shown}: {path} in body should be at least {context['min_length']} chars long")
    if kind == "too_long":
        return Problem(path, f"Too many: {context['actual_length']}: must have at most {context['max_length']} items")
    if kind == "too_short":
        return Problem(
            path, f"Invalid value: {context['actual_length']}: {path} in body should have at least {context['min_length']} items"
        )
    if kind in ("enum", "literal_error"):
        known = _expected(context["expected"])
        words = ", ".join(f'"{entry}"' for entry in known)
        return Problem(path, f"Unsupported value: {shown}: supported values: {words}", _near(str(value), known))
    wanted = _TYPES.get(kind.removesuffix("_type").removesuffix("_parsing").removesuffix("_from_float"))
    if wanted:
        found = _json_type(value)
        return Problem(path, f"Invalid value: {json.dumps(found)}: {path} in body must be of type {wanted}: {json.dumps(found)}")
    return Problem(path, f"Invalid value: {shown}: {details['msg']}")


def _follow(document: Any, location: tuple[str | int, ...]) -> Iterator[str | int]:
    """The part of a pydantic location that is a way through the document: union members are left out."""
    for index, step in enumerate(location):
        last = index == len(location) - 1
        if isinstance(document, Mapping) and isinstance(step, str) and (step in document or last):
            document = document.get(step)
        elif isinstance(document, list) and isinstance(step, int) and step < len(document):
            document = document[step]
        else:
            continue
        yield step


def _path(steps: list[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _field_names() -> list[str]:
    """Every field name of the API: the nearest of them is what was meant more often than not."""
    names: set[str] = set()
    pending: list[type[Model]] = [CompressionJob, ClusterCompressionRuntime]
    seen: set[type] = set()
    while pending:
        model = pending.pop()
        if model in seen:
            continue
        seen.add(model)
        names |= {str(field.alias) for field in model.model_fields.values()}
        pending += [kind for field in model.model_fields.values() for kind in _models(field.annotation)]
    return sorted(names)


def _models(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


def _near(word: str, known: list[str]) -> str:
    found = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {found[0]}?" if found else ""


def _expected(text: str) -> list[str]:
    return [entry.strip().strip("'") for entry in text.replace(" or ", ", ").split(",")]


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _check_values(document: Any) -> None:
    """JSON has no dates, infinities or endless structures; YAML does."""
    count = 0
    pending: list[tuple[str, Any]] = [("", document)]
    while pending:
        path, value = pending.pop()
        count += 1
        if count > MAX_NODES:
            raise ManifestError([Problem("", f"more than {MAX_NODES} values in one manifest")])
        if isinstance(value, dict):
            pending += [(f"{path}.{key}".removeprefix("."), entry) for key, entry in value.items()]
        elif isinstance(value, list):
            pending += [(f"{path}[{index}]", entry) for index, entry in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            raise ManifestError([Problem(path, f"Invalid value: {value}: a number must be finite")])
        elif not isinstance(value, str | int | float | bool | None):
            raise ManifestError([Problem(path, f"Invalid value: {value}: put it in quotes, it reads as {type(value).__name__}")])
