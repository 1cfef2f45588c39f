"""The spec that runs: the platform's defaults below, the job's own fields above, built-in defaults last.

Maps are merged key by key, lists are taken whole. What comes out is fixed when the job starts; its digest stands in
`status`, its whole in a ControllerRevision.
"""

import posixpath
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from kompress_api.canonical import canonical_json, digest
from kompress_api.errors import InvalidManifest, NoOutput, SpecTooLarge
from kompress_api.job import CompressionJobSpec
from kompress_api.names import ShortText, Uri
from kompress_api.places import Access, ModelSource, Output, Tracking
from kompress_api.runtime import (
    WORKER,
    ClusterCompressionRuntimeSpec,
    PodTemplate,
    Resources,
    RestartPolicy,
    Runtime,
    Toleration,
)
from kompress_api.stages.stage import Stage

MAX_SPEC_BYTES = 32 * 1024
"""Of the merged spec without podTemplates: `preflight` and `report` get it in an environment variable."""
MAX_SPEC_BYTES_WITH_POD_TEMPLATES = 256 * 1024
"""Of the merged spec as a whole: it is kept in a ControllerRevision."""

BUILT_IN: dict[str, Any] = {
    "runtime": {
        "nodes": 1,
        "processesPerNode": "auto",
        "resources": {"limits": {}, "requests": {}},
        "nodeSelector": {},
        "tolerations": [],
        "queueName": "",
        "podTemplate": {},
    },
    "restartPolicy": {"maxRestarts": 3, "windowSeconds": 3600, "backoffSeconds": 10},
    "maxParallelStages": 1,
    "startupDeadlineSeconds": 600,
    "ttlSecondsAfterFinished": 604_800,
}
"""Defaults of the fields that a runtime may hold; they stand in the fields' descriptions too (a test compares)."""


class ResolvedRuntime(Runtime):
    """A Runtime with nothing left open."""

    image: Uri
    """Image with kompress_jobs and the user's own code."""
    nodes: int
    """Pods of a stage."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | Literal["auto"]
    """Worker processes a pod."""
    resources: Resources
    """Resources of the container `worker`."""
    node_selector: dict[str, ShortText]
    """As in a pod."""
    tolerations: list[Toleration]
    """As in a pod."""
    queue_name: str
    """Kueue's LocalQueue, or empty."""
    pod_template: PodTemplate
    """Strategic merge onto the pod template."""


class ResolvedRestartPolicy(RestartPolicy):
    """A RestartPolicy with nothing left open."""

    max_restarts: int
    """Restarts that may be spent within the window."""
    window_seconds: int
    """Seconds after which a restart is forgotten."""
    backoff_seconds: int
    """Seconds before the first restart."""


class MergedSpec(CompressionJobSpec):
    """A CompressionJobSpec with nothing left open."""

    output: Output
    """Where artifacts and checkpoints are kept."""
    tracking: Tracking
    """The MLflow server."""
    runtime: ResolvedRuntime
    """How the pods of every stage look."""
    restart_policy: ResolvedRestartPolicy
    """When a failed stage is tried again."""
    max_parallel_stages: int
    """Stages that may run at once."""
    startup_deadline_seconds: int
    """Seconds within which all pods of an attempt must run."""
    ttl_seconds_after_finished: int
    """Seconds after the end when Jobs, pods and the Service are deleted."""

    def runtime_of(self, stage: Stage | None) -> ResolvedRuntime:
        """The pods of one stage, its own overrides applied; of preflight and report for None."""
        if stage is None or stage.runtime is None:
            return self.runtime
        return _resolved(_overlay_runtime(self.runtime.dump(), stage.runtime.dump()), f"stage {stage.name}: runtime")

    def without_pod_templates(self) -> dict[str, Any]:
        """As `preflight` and `report` get it."""
        spec = self.dump()
        for block in [spec, *spec["stages"]]:
            block.get("runtime", {}).pop("podTemplate", None)
        return spec


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` wins: maps key by key, all else whole."""
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = overlay(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return merged


def _overlay_runtime(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """As `overlay`; who makes a gang elastic and names no `nodes` gets the nearest number within its bounds."""
    merged = overlay(below, above)
    bounds = above.get("elastic")
    if bounds is not None and "nodes" not in above:
        merged["nodes"] = min(max(merged["nodes"], bounds["minNodes"]), bounds["maxNodes"])
    return merged


def _resolved(runtime: Mapping[str, Any], path: str) -> ResolvedRuntime:
    """Raises InvalidManifest for blocks that are right by themselves and wrong together, such as `nodes` beside another's `elastic`."""
    try:
        return ResolvedRuntime.model_validate(runtime)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidManifest(first["msg"], hint="name nodes and elastic in one place", field=path) from error


def merge(spec: CompressionJobSpec, runtime: ClusterCompressionRuntimeSpec | None) -> MergedSpec:
    """The spec that runs.

    Raises NoOutput where a place is named by neither, SpecTooLarge over the limits, InvalidManifest where a runtime can't be merged.
    """
    platform = runtime.dump() if runtime is not None else {}
    own = spec.dump()
    merged = overlay(overlay(BUILT_IN, platform), own)
    merged["runtime"] = _overlay_runtime(_overlay_runtime(BUILT_IN["runtime"], platform.get("runtime", {})), own.get("runtime", {}))
    for path in ("output", "tracking", "runtime.image"):
        if not _has(merged, path):
            raise NoOutput(
                f"neither the job nor the runtime {spec.runtime_ref.name!r} names one",
                hint=f"set spec.{path} in the job, or in the ClusterCompressionRuntime",
                field=f"spec.{path}",
            )
    merged["runtime"] = _resolved(merged["runtime"], "spec.runtime").dump()
    result = MergedSpec.model_validate(merged)
    for stage in result.stages:
        result.runtime_of(stage)
    _check_size("the merged spec without podTemplates", result.without_pod_templates(), MAX_SPEC_BYTES)
    _check_size("the merged spec", result.dump(), MAX_SPEC_BYTES_WITH_POD_TEMPLATES)
    return result


def spec_digest(spec: MergedSpec) -> str:
    """SHA-256 of the merged spec. `suspend` and the TTL are read live from the job, so they are no part of it."""
    content = spec.dump()
    content.pop("suspend", None)
    content.pop("ttlSecondsAfterFinished", None)
    return digest(content)


def refuse_uncovered_files(spec: MergedSpec) -> None:
    """On a cluster a `file://` place must lie below a volume of the pod template; raises NoOutput with the field's path."""
    for path, uri in _places(spec):
        parts = urlsplit(uri)
        if parts.scheme not in ("file", "sqlite"):
            continue
        for name, runtime in [("spec.runtime", spec.runtime), *((f"stage {s.name}", spec.runtime_of(s)) for s in spec.stages)]:
            if not any(_below(parts.path, mount) for mount in _mounts(runtime)):
                raise NoOutput(
                    f"{uri} is a folder of the pod, and no volumeMount of the container {WORKER!r} in the podTemplate of {name} covers it",
                    hint="use s3://, or mount a volume there by runtime.podTemplate",
                    field=path,
                )


def _has(spec: Mapping[str, Any], path: str) -> bool:
    value: Any = spec
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return bool(value)


def _check_size(what: str, content: object, limit: int) -> None:
    size = len(canonical_json(content))
    if size > limit:
        raise SpecTooLarge(f"{what} has {size} bytes, the limit is {limit}", hint="shorten podTemplates or split the job in two")


def _places(spec: MergedSpec) -> list[tuple[str, str]]:
    models: list[tuple[str, Access]] = [("spec.model.source", spec.model)]
    models += [
        (f"spec.stages[{i}].distill.student.source", stage.distill.student)
        for i, stage in enumerate(spec.stages)
        if stage.distill is not None and stage.distill.student is not None
    ]
    models += [
        (f"{path.removesuffix('source')}weights[{i}].source", weights)
        for path, model in models
        if isinstance(model, ModelSource)
        for i, weights in enumerate(model.weights)
    ]
    found = [("spec.output.uri", spec.output.uri), ("spec.dataset.source", spec.dataset.source), ("spec.tracking.uri", spec.tracking.uri)]
    return found + [(path, getattr(place, "source", "")) for path, place in models]


def _mounts(runtime: ResolvedRuntime) -> list[str]:
    pod = runtime.pod_template.get("spec")
    containers = pod.get("containers", []) if isinstance(pod, Mapping) else []
    return [
        str(mount.get("mountPath", ""))
        for container in containers
        if isinstance(container, Mapping) and container.get("name") == WORKER
        for mount in container.get("volumeMounts", [])
        if isinstance(mount, Mapping)
    ]


def _below(path: str, folder: str) -> bool:
    path, folder = posixpath.normpath(path), posixpath.normpath(folder)
    return bool(folder) and (path == folder or path.startswith(folder.rstrip("/") + "/"))
