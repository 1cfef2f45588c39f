"""One CompressionJob as the cluster shows it: Kubernetes' objects in, an `Observed` out.

The CompressionJob is read first and its Jobs after it, so that the Jobs are never older than the status; both come from the
API server itself, not from a cache. Pods are only listed for an attempt that ended, is being stopped, or is late, and whose
outcome isn't recorded yet. The translation (`build_...`) is pure; what follows from it is not decided here.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kompress_api.contract import Termination
from kompress_api.names import (
    DEFAULT_RUNTIME,
    GROUP,
    KIND,
    LABEL_ATTEMPT,
    LABEL_JOB,
    LABEL_STAGE,
    PLURAL,
    RUNTIME_PLURAL,
    VERSION,
    service_name,
)
from kompress_api.reasons import Reason
from kompress_api.runtime import WORKER, RuntimeRef
from kompress_api.status import CompressionJobStatus
from kompress_operator.api import Api, Forbidden, Json, NotFound
from kompress_operator.observed import Disruption, Observed, ObservedAttempt, ObservedJob, ObservedPod, ObservedRuntime, Obstacle
from kompress_operator.policies.start_deadline import LOOK_AGAIN_SECONDS
from kompress_operator.times import epoch

TERMINATION: TypeAdapter[Any] = TypeAdapter(Termination)
INDEX = "batch.kubernetes.io/job-completion-index"
CONTROLLER = "batch.kubernetes.io/controller-uid"
LAST_WORDS = 500
DISRUPTIONS: dict[str, Disruption] = {
    "PreemptionByScheduler": Reason.PREEMPTED,
    "DeletionByTaintManager": Reason.NODE_LOST,
    "DeletionByPodGC": Reason.NODE_LOST,
    "EvictionByEvictionAPI": Reason.EVICTED,
    "TerminationByKubelet": Reason.EVICTED,
}
"""Reasons of the condition DisruptionTarget."""
POD_REASONS: dict[str, Disruption] = {
    "Evicted": Reason.EVICTED,
    "Terminated": Reason.EVICTED,
    "NodeShutdown": Reason.EVICTED,
    "Preempting": Reason.PREEMPTED,
    "NodeLost": Reason.NODE_LOST,
}
"""A pod's own `status.reason`, where a kubelet set no condition."""


@dataclasses.dataclass(frozen=True, order=True)
class Key:
    """Which CompressionJob: the uid tells it from a later one of the same name."""

    namespace: str
    name: str
    uid: str


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
            pods = await _pods(api, key.namespace, attempt.uid) if needs_look(attempt, status, now) else None
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


def owned(item: Json, uid: str) -> bool:
    """Whether the job of this uid is the owner."""
    return any(owner.get("uid") == uid for owner in item["metadata"].get("ownerReferences") or ())


def leftover(item: Json, key: Key) -> bool:
    """Whether it belonged to a job of the same name that is gone: the garbage collector will remove it."""
    owners = item["metadata"].get("ownerReferences") or ()
    return any(owner.get("kind") == KIND and owner.get("name") == key.name and owner.get("uid") != key.uid for owner in owners)


def taken(kind: str, item: Json, key: Key, stage: str = "") -> Obstacle:
    """An object that has a name which this job needs."""
    metadata = item["metadata"]
    passing = "deletionTimestamp" in metadata or leftover(item, key)
    owners = ", ".join(f"{owner.get('kind')} {owner.get('name')}" for owner in metadata.get("ownerReferences") or ()) or "nobody"
    message = "is being deleted" if passing else f"exists already and belongs to {owners}: delete it, or give the job another name"
    return Obstacle(kind=kind, name=metadata["name"], reason=Reason.NAME_TAKEN, message=message, passing=passing, stage=stage)


def needs_look(attempt: ObservedAttempt, status: CompressionJobStatus, now: float) -> bool:
    """Whether an attempt's pods must be asked."""
    entry = status.stage(attempt.stage)
    record = next((known for known in entry.attempts if known.attempt == attempt.attempt), None) if entry is not None else None
    if attempt.deleting is not None and not attempt.ended:
        return True
    if record is not None and record.outcome:
        return False
    if attempt.ended or attempt.failing or attempt.terminating:
        return True
    running = attempt.ready + attempt.succeeded
    return not attempt.queued and running < attempt.nodes and now >= (attempt.started or attempt.created) + LOOK_AGAIN_SECONDS


def build_job(item: Json) -> ObservedJob:
    """The CompressionJob itself."""
    metadata = item["metadata"]
    return ObservedJob(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        created=epoch(metadata["creationTimestamp"]),
        spec=item.get("spec") or {},
        generation=metadata.get("generation", 1),
    )


def build_attempt(item: Json) -> ObservedAttempt:
    """A Job, without its pods."""
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    conditions = _conditions(status)
    end = conditions.get("Failed") or conditions.get("FailureTarget")
    labels = metadata.get("labels") or {}
    return ObservedAttempt(
        name=metadata["name"],
        stage=labels.get(LABEL_STAGE, ""),
        attempt=int(labels.get(LABEL_ATTEMPT, 0)),
        uid=metadata["uid"],
        created=epoch(metadata["creationTimestamp"]),
        started=_time(status.get("startTime")),
        queued=bool(spec.get("suspend")),
        deleting=_time(metadata.get("deletionTimestamp")),
        nodes=spec.get("parallelism") or spec.get("completions") or 1,
        ready=status.get("ready") or 0,
        succeeded=status.get("succeeded") or 0,
        failed_pods=status.get("failed") or 0,
        terminating=status.get("terminating") or 0,
        complete="Complete" in conditions,
        failed="Failed" in conditions,
        failing="FailureTarget" in conditions,
        message=f"{end.get('reason', '')}: {end.get('message', '')}" if end is not None else "",
    )


def build_pod(item: Json) -> ObservedPod:
    """A pod, as far as its container `worker` goes; a failed init container speaks for one that never ran."""
    metadata, status = item["metadata"], item.get("status") or {}
    conditions = _conditions(status)
    worker: Json = next((entry for entry in status.get("containerStatuses") or () if entry.get("name") == WORKER), {})
    state = worker.get("state") or {}
    ended = state.get("terminated") or _failed_init(status) if status.get("phase") in ("Succeeded", "Failed") else None
    unscheduled = _condition_false(status, "PodScheduled")
    waiting, why = _waiting(state, status, unscheduled)
    text = (ended or {}).get("message") or ""
    termination = _termination(text)
    disruption, since = _disruption(status, conditions)
    return ObservedPod(
        name=metadata["name"],
        index=int((metadata.get("annotations") or {}).get(INDEX, 0)),
        node=(item.get("spec") or {}).get("nodeName") or "",
        scheduled=unscheduled is None,
        started="running" in state or "terminated" in state,
        waiting=waiting,
        waiting_message=why,
        disruption=disruption,
        disrupted_at=since,
        delete_by=_time(metadata.get("deletionTimestamp")),
        exit_code=ended.get("exitCode") if ended else None,
        oom=bool(ended) and (ended or {}).get("reason") == "OOMKilled",
        finished_at=_finished_at(item, ended),
        termination=termination,
        last_words="" if termination is not None else text[-LAST_WORDS:] or str(status.get("message") or ""),
    )


def _conditions(status: Json) -> dict[str, Json]:
    """Those that hold, by type."""
    return {entry["type"]: entry for entry in status.get("conditions") or () if entry.get("status") == "True"}


def _condition_false(status: Json, kind: str) -> Json | None:
    return next((entry for entry in status.get("conditions") or () if entry["type"] == kind and entry.get("status") == "False"), None)


def _time(text: str | None) -> float | None:
    return epoch(text) if text else None


def _failed_init(status: Json) -> Json | None:
    ends = (((entry.get("state") or {}).get("terminated")) for entry in status.get("initContainerStatuses") or ())
    return next((end for end in ends if end and end.get("exitCode")), None)


def _waiting(state: Json, status: Json, unscheduled: Json | None) -> tuple[str, str]:
    if unscheduled is not None:
        return str(unscheduled.get("reason") or "Unschedulable"), str(unscheduled.get("message") or "")
    states: Iterable[Json] = [state, *((entry.get("state") or {}) for entry in status.get("initContainerStatuses") or ())]
    for candidate in states:
        waits = candidate.get("waiting")
        if waits and waits.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return str(waits["reason"]), str(waits.get("message") or "")
    return "", ""


def _disruption(status: Json, conditions: Mapping[str, Json]) -> tuple[Disruption | None, float | None]:
    target = conditions.get("DisruptionTarget")
    if target is not None:
        return DISRUPTIONS.get(str(target.get("reason")), Reason.EVICTED), _time(target.get("lastTransitionTime"))
    return POD_REASONS.get(str(status.get("reason"))), None


def _finished_at(item: Json, ended: Json | None) -> float | None:
    """When the pod ended; one that the API server ended without its kubelet has no better time than its last condition's."""
    status = item.get("status") or {}
    if status.get("phase") not in ("Succeeded", "Failed"):
        return None
    times = [str(entry.get("lastTransitionTime") or "") for entry in status.get("conditions") or ()]
    return _time((ended or {}).get("finishedAt")) or _time(max(times, default="") or item["metadata"]["creationTimestamp"])


def _termination(text: str) -> Any:
    try:
        return TERMINATION.validate_json(text) if text.startswith("{") else None
    except ValidationError:
        return None
