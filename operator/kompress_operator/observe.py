"""One CompressionJob as the cluster shows it: reads Kubernetes' objects, gives an `Observed`.

The CompressionJob is read first and its Jobs after it, so that the Jobs are never older than the status; both come from the
API server itself, not from a cache. Pods are not listed for an attempt that waits in a queue, or that has ended with its outcome
recorded. What the objects say is put into our words by `translation.py`; what follows is not decided here.
"""

import dataclasses
from collections.abc import Mapping

from pydantic import ValidationError

from kompress_api.names import DEFAULT_RUNTIME, GROUP, LABEL_JOB, PLURAL, RUNTIME_PLURAL, VERSION, service_name
from kompress_api.runtime import RuntimeRef
from kompress_api.status import CompressionJobStatus
from kompress_operator.api import Api, Forbidden, Json, NotFound
from kompress_operator.observed import Observed, ObservedAttempt, ObservedJob, ObservedPod, ObservedRuntime, Obstacle
from kompress_operator.translation import Key, build_attempt, build_job, build_pod, leftover, owned, taken

CONTROLLER = "batch.kubernetes.io/controller-uid"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What `reconcile` gets, and what a write needs besides."""

    observed: Observed
    resource_version: str
    labels: Mapping[str, str]
    seen: tuple[tuple[str, str, str], ...]
    """(plural, uid, resourceVersion) of each watched object that was read."""


def job_path(namespace: str, name: str) -> str:
    """Path of a CompressionJob."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}"


def jobs_path(namespace: str) -> str:
    """Path of a namespace's Jobs."""
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def revision_path(namespace: str, name: str = "") -> str:
    """Path of a ControllerRevision, or of all."""
    return f"/apis/apps/v1/namespaces/{namespace}/controllerrevisions" + (f"/{name}" if name else "")


def service_path(namespace: str, name: str = "") -> str:
    """Path of a Service, or of all."""
    return f"/api/v1/namespaces/{namespace}/services" + (f"/{name}" if name else "")


async def observe(api: Api, key: Key, now: float) -> Snapshot | None:
    """None where there is no such job (any more), or where it is being deleted: its objects go with it."""
    try:
        found = await api.get(job_path(key.namespace, key.name))
    except NotFound:
        return None
    metadata = found["metadata"]
    if metadata["uid"] != key.uid or "deletionTimestamp" in metadata:
        return None
    job = build_job(found)
    status = CompressionJobStatus.model_validate(found.get("status") or {})
    obstacles: list[Obstacle] = []
    attempts: list[ObservedAttempt] = []
    seen = [(PLURAL, key.uid, metadata["resourceVersion"])]
    async for item in api.pages(jobs_path(key.namespace), labelSelector=f"{LABEL_JOB}={key.name}"):
        if owned(item, key.uid):
            attempt = build_attempt(item)
            pods = await _pods(api, key.namespace, attempt.uid) if needs_look(attempt, status) else None
            attempts.append(dataclasses.replace(attempt, pods=pods))
            seen.append(("jobs", attempt.uid, item["metadata"]["resourceVersion"]))
        elif leftover(item, key):
            obstacles.append(taken("Job", item, key))
    merged = await _owned_object(api, revision_path(key.namespace, key.name), "ControllerRevision", key, obstacles)
    service = await _owned_object(api, service_path(key.namespace, service_name(key.name)), "Service", key, obstacles)
    observed = Observed(
        job=job,
        status=status,
        runtime=await _runtime(api, job) if merged is None and not status.phase.finished else None,
        merged=merged["data"] if merged is not None else None,
        attempts=tuple(attempts),
        service=service is not None,
        obstacles=tuple(obstacles),
    )
    return Snapshot(observed, metadata["resourceVersion"], metadata.get("labels") or {}, tuple(seen))


async def _owned_object(api: Api, path: str, kind: str, key: Key, obstacles: list[Obstacle]) -> Json | None:
    try:
        found = await api.get(path)
    except NotFound:
        return None
    if owned(found, key.uid):
        return found
    obstacles.append(taken(kind, found, key))
    return None


async def _runtime(api: Api, job: ObservedJob) -> ObservedRuntime:
    try:
        name = RuntimeRef.model_validate(job.spec.get("runtimeRef") or {"name": DEFAULT_RUNTIME}).name
    except ValidationError:  # the whole spec is judged by `reconcile`
        name = DEFAULT_RUNTIME
    try:
        found = await api.get(f"/apis/{GROUP}/{VERSION}/{RUNTIME_PLURAL}/{name}")
    except NotFound:
        return ObservedRuntime(name=name)
    except Forbidden:
        return ObservedRuntime(name=name, refused="this operator was installed without the right to read ClusterCompressionRuntimes")
    return ObservedRuntime(name=name, spec=found.get("spec") or {})


async def _pods(api: Api, namespace: str, job_uid: str) -> tuple[ObservedPod, ...]:
    found = [build_pod(item) async for item in api.pages(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"{CONTROLLER}={job_uid}")]
    return tuple(sorted(found, key=lambda pod: (pod.index, pod.name)))


def needs_look(attempt: ObservedAttempt, status: CompressionJobStatus) -> bool:
    """Whether an attempt's pods must be asked."""
    entry = status.stage(attempt.stage)
    record = next((known for known in entry.attempts if known.attempt == attempt.attempt), None) if entry is not None else None
    return (not attempt.queued or attempt.deleting is not None) and (not attempt.ended or record is None or not record.outcome)
