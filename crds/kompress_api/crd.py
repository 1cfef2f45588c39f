"""The CRDs, generated from the models:  python -m kompress_api.crd [FOLDER]

Kubernetes wants structural schemas: every reference inlined, no unions but int-or-string, a cap on every string, list
and map so that the cost of CEL rules can be bounded. KEP-1027 (structural schemas), KEP-2876 (CEL validation).
"""

import json
import pathlib
import sys
from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from kompress_api.base import Model
from kompress_api.job import NAME_RULE, CompressionJobSpec
from kompress_api.names import GROUP, KIND, PLURAL, RUNTIME_KIND, RUNTIME_PLURAL, VERSION
from kompress_api.runtime import ClusterCompressionRuntimeSpec
from kompress_api.status import CompressionJobStatus

MAX_BYTES = 256 * 1024
DEFAULT_MAX_LENGTH = 1024
KEPT = ("type", "description", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties")
Schema = dict[str, Any]

COLUMNS = (
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Stage", "type": "string", "jsonPath": ".status.summary.stage"},
    {"name": "Attempt", "type": "integer", "jsonPath": ".status.summary.attempt"},
    {"name": "Progress", "type": "string", "jsonPath": ".status.summary.progress"},
    {"name": "Accuracy", "type": "number", "jsonPath": ".status.summary.accuracy"},
    {"name": "WER", "type": "number", "jsonPath": ".status.summary.wer", "priority": 1},
    {"name": "Smaller", "type": "number", "jsonPath": ".status.summary.smaller"},
    {"name": "Faster", "type": "number", "jsonPath": ".status.summary.faster"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)
"""Columns of `kubectl get`."""


def job_crd() -> Schema:
    """The CRD of CompressionJob."""
    root = {
        "type": "object",
        "description": "Makes a trained model small and fast: runs its stages as distributed torchrun pods and judges the goals.",
        "required": ["spec"],
        "properties": {"spec": schema_of(CompressionJobSpec), "status": schema_of(CompressionJobStatus)},
        "x-kubernetes-validations": [NAME_RULE.validation()],
    }
    return _crd(KIND, PLURAL, "compressionjob", ["cmpj"], "Namespaced", root, {"status": {}}, COLUMNS)


def runtime_crd() -> Schema:
    """The CRD of ClusterCompressionRuntime."""
    root = {
        "type": "object",
        "description": "The platform team's defaults for CompressionJobs: image, output, tracking, nodes, resources, restarts.",
        "required": ["spec"],
        "properties": {"spec": schema_of(ClusterCompressionRuntimeSpec)},
    }
    age = ({"name": "Image", "type": "string", "jsonPath": ".spec.runtime.image"}, COLUMNS[-1])
    return _crd(RUNTIME_KIND, RUNTIME_PLURAL, "clustercompressionruntime", ["cmprt"], "Cluster", root, {}, age)


def _crd(
    kind: str, plural: str, singular: str, short: list[str], scope: str, root: Schema, subresources: Schema, columns: tuple[Schema, ...]
) -> Schema:
    root["properties"] = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}} | root["properties"]
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": list(columns),
        "schema": {"openAPIV3Schema": root},
    }
    if subresources:
        version["subresources"] = subresources
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": singular,
        "shortNames": short,
        "categories": ["kompress"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": scope, "versions": [version]},
    }


def schema_of(model: type[Model]) -> Schema:
    """The structural schema of a model, its rules as x-kubernetes-validations."""
    generated = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(generated, generated.get("$defs", {}))


def _structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """One node of pydantic's JSON schema as Kubernetes takes it."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    variants = [entry for entry in schema.get("anyOf", ()) if entry.get("type") != "null"]
    if len(variants) == 1:
        inner = _structural(variants[0], definitions)
        return inner | {key: value for key, value in _kept(schema).items() if key == "description" or key not in inner}
    if variants:
        return _int_or_string([_structural(entry, definitions) for entry in variants]) | _kept(schema)
    found = _kept(schema)
    if "const" in schema:
        found |= {"type": "string", "enum": [schema["const"]]}
    for bound in ("minimum", "maximum"):
        exclusive = "exclusive" + bound.capitalize()
        if exclusive in schema:
            found |= {bound: schema[exclusive], exclusive: True}
    if found.get("type") == "integer":
        found["format"] = "int64"
    elif found.get("type") == "string" and "enum" not in found:
        found.setdefault("maxLength", DEFAULT_MAX_LENGTH)
    elif found.get("type") == "array":
        found["items"] = _structural(schema["items"], definitions)
    elif found.get("type") == "object":
        found |= _object(schema, definitions)
    if schema.get("default") is not None:
        found["default"] = _without_nulls(schema["default"])
        if not isinstance(found["default"], dict) and "description" in found:
            found["description"] += f" Default: `{json.dumps(found['default']).strip(chr(34))}`."  # kubectl explain shows no defaults
    return found


def _kept(schema: Mapping[str, Any]) -> Schema:
    found = {key: schema[key] for key in KEPT if key in schema}
    if "description" in found:
        found["description"] = " ".join(found["description"].split())
    return found


def _object(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    if "properties" in schema:
        found: Schema = {"properties": {name: _structural(entry, definitions) for name, entry in schema["properties"].items()}}
        if schema.get("required"):
            found["required"] = schema["required"]
        if rules := schema.get("x-kubernetes-validations"):
            found["x-kubernetes-validations"] = rules
        return found
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping) and values:
        return {"additionalProperties": _structural(values, definitions)}
    return {"x-kubernetes-preserve-unknown-fields": True}


def _int_or_string(variants: list[Schema]) -> Schema:
    """An integer or a word: the only union that a structural schema knows."""
    found: Schema = {"x-kubernetes-int-or-string": True}
    for variant in variants:
        if variant["type"] == "integer":
            found |= {key: variant[key] for key in ("minimum", "maximum") if key in variant}
        elif "enum" in variant:
            found |= {"pattern": f"^({'|'.join(variant['enum'])})$", "maxLength": max(map(len, variant["enum"]))}
        else:
            found |= {key: variant[key] for key in ("pattern", "maxLength") if key in variant}
    return found


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_without_nulls(entry) for entry in value]
    return value


def to_yaml(crd: Schema) -> str:
    """The file that is committed: generated, so not to be edited."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 4096
    out = StringIO()
    yaml.dump(crd, out)
    return f"# Generated from crds/kompress_api by `python -m kompress_api.crd`; do not edit.\n{out.getvalue()}"


def files() -> dict[str, str]:
    """Name -> content of every generated file."""
    return {f"{crd['metadata']['name']}.yaml": to_yaml(crd) for crd in (job_crd(), runtime_crd())}


def main() -> None:
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[1]
    for name, content in files().items():
        (folder / name).write_text(content)


if __name__ == "__main__":
    main()
