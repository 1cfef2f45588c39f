"""`runtime.podTemplate` onto the pods that we build: Kubernetes' strategic merge, and what a template may not touch.

No Python library does this merge; its rules are those of `kubectl patch --type=strategic`: maps key by key, `null` removes,
lists of the table below item by item, other lists whole, `$patch: delete | replace` as there. A volume may change its kind
(`retainKeys`). Whether the result is a good pod is the API server's to say.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kompress_api.errors import InvalidManifest
from kompress_api.job import CompressionJobSpec
from kompress_api.names import GROUP
from kompress_api.runtime import FORBIDDEN_CONTAINER_FIELDS, FORBIDDEN_POD_FIELDS, WORKER, SharedSpec

MERGE_KEYS: Final[Mapping[str, str]] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "volumes": "name",
    "resourceClaims": "name",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "schedulingGates": "name",
    "topologySpreadConstraints": "topologyKey",
    "ownerReferences": "uid",
}
"""Lists of a PodTemplateSpec that are merged by a key of their items (a test compares them with the API server's schema)."""

RETAIN_KEYS: Final = frozenset({"volumes", "resourceClaims"})
"""Lists whose items are unions: a field that the patch's item does not name goes away (another kind of volume)."""

RESERVED_ENVIRONMENT: Final = "KOMPRESS_"
PATCH: Final = "$patch"

Json = dict[str, Any]


def strategic_merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Json:
    """`above` laid onto `below`; neither is changed."""
    if above.get(PATCH) == "replace":
        return {key: value for key, value in above.items() if key != PATCH}
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = strategic_merge(known if isinstance(known, Mapping) else {}, value)
        elif isinstance(value, list) and key in MERGE_KEYS:
            merged[key] = _merge_items(known if isinstance(known, list) else [], value, key)
        else:
            merged[key] = value
    return {key: value for key, value in merged.items() if not (isinstance(value, Mapping) and value.get(PATCH) == "delete")}


def _merge_items(below: list[Any], above: list[Any], field: str) -> list[Any]:
    """Item by item: known ones keep their place, new ones come last."""
    if {PATCH: "replace"} in above:
        return [item for item in above if item != {PATCH: "replace"}]
    key = MERGE_KEYS[field]
    merged = {item[key]: item for item in below}
    for item in above:
        name = item[key]
        if item.get(PATCH) == "delete":
            merged.pop(name, None)
            continue
        known = merged.get(name, {})
        if field in RETAIN_KEYS:
            known = {inner: value for inner, value in known.items() if inner in item}
        merged[name] = strategic_merge(known, item)
    return list(merged.values())


def refuse_reserved_fields(template: Mapping[str, Any], field: str) -> None:
    """A template may not touch what makes a pod a rank of its gang; `field` is the template's path in the manifest.

    Raises:
        InvalidManifest: the first such field, by its path.
    """
    for path, reason in _reserved(template):
        raise InvalidManifest(reason, hint="take it out of the podTemplate", field=f"{field}.{path}")


def reserved_fields(spec: SharedSpec) -> Iterator[tuple[str, str]]:
    """Path and reason of every such field in the pod templates of a job or of a runtime; at most one a template is named."""
    blocks = [("spec.runtime", spec.runtime)]
    if isinstance(spec, CompressionJobSpec):
        blocks += [(f"spec.stages[{index}].runtime", stage.runtime) for index, stage in enumerate(spec.stages)]
    for path, runtime in blocks:
        try:
            refuse_reserved_fields((runtime and runtime.pod_template) or {}, f"{path}.podTemplate")
        except InvalidManifest as error:
            yield error.field, error.message


def _reserved(template: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in template:
        if key not in ("metadata", "spec"):
            yield key, f"a pod template has metadata and spec, not {key}"
    yield from _no_patch(template, "")
    metadata, spec = template.get("metadata", {}), template.get("spec", {})
    for key, value in (("metadata", metadata), ("spec", spec)):
        if not isinstance(value, Mapping):
            yield key, f"{value!r} is no map"
            return
    for kind in ("labels", "annotations"):
        for label in metadata.get(kind) or {}:
            if label.startswith((f"{GROUP}/", "batch.kubernetes.io/")):
                yield f"metadata.{kind}[{label}]", f"{label} is set by the operator"
    for name in FORBIDDEN_POD_FIELDS:
        if name in spec:
            yield f"spec.{name}", f"{name} is set by the operator: a gang's pods restart and find each other by it"
    yield from _no_patch(spec, "spec")
    for list_name in [name for name in spec if name in MERGE_KEYS]:
        yield from _items_have_key(spec[list_name], f"spec.{list_name}", list_name)
    for index, container in enumerate(spec.get("containers") or []):
        yield from _container(container, f"spec.containers[{index}]")


def _container(container: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for list_name in [name for name in container if name in MERGE_KEYS]:
        yield from _items_have_key(container[list_name], f"{path}.{list_name}", list_name)
    if container["name"] != WORKER:
        return
    yield from _no_patch(container, path)
    for name in FORBIDDEN_CONTAINER_FIELDS:
        if name in container:
            yield f"{path}.{name}", f"{name} of the container {WORKER} is set by the operator"
    for index, variable in enumerate(container.get("env") or []):
        if str(variable["name"]).startswith(RESERVED_ENVIRONMENT):
            reason = f"{variable['name']}: variables that begin with {RESERVED_ENVIRONMENT} are set by the operator or by the image"
            yield f"{path}.env[{index}].name", reason


def _no_patch(value: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    if PATCH in value:
        yield f"{path}.{PATCH}".lstrip("."), f"{PATCH} here would remove what the operator sets"


def _items_have_key(items: object, path: str, field: str) -> Iterator[tuple[str, str]]:
    key = MERGE_KEYS[field]
    if not isinstance(items, list):
        yield path, f"{items!r} is no list"
        return
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            yield f"{path}[{index}]", f"{item!r} is no map"
        elif key not in item:
            if item == {PATCH: "replace"} and field not in ("containers", "env"):
                continue
            yield f"{path}[{index}]", f"every item needs a {key}"
