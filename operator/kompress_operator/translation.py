"""Kubernetes' objects in our words: a Job is an attempt, its container `worker` speaks for a pod. Pure; nothing is decided here."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kompress_api.contract import Termination
from kompress_api.names import KIND, LABEL_ATTEMPT, LABEL_STAGE
from kompress_api.reasons import Reason
from kompress_api.runtime import WORKER
from kompress_operator.api import Json
from kompress_operator.observed import Disruption, ObservedAttempt, ObservedJob, ObservedPod, Obstacle
from kompress_operator.times import epoch

TERMINATION: TypeAdapter[Any] = TypeAdapter(Termination)
INDEX = "batch.kubernetes.io/job-completion-index"
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
    end = conditions.get("Failed")
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
        message=f"{end.get('reason', '')}: {end.get('message', '')}" if end is not None else "",
    )


def build_pod(item: Json) -> ObservedPod:
    """A pod, as far as its container `worker` goes; a failed init container speaks for one that never ran."""
    metadata, status = item["metadata"], item.get("status") or {}
    conditions = _conditions(status)
    state = worker_state(item)
    terminated = state.get("terminated")
    if status.get("phase") in ("Succeeded", "Failed"):
        ended = terminated or _failed_init(status)
    else:  # what a failure means, the conditions say that come with the phase
        ended = terminated if terminated and terminated.get("exitCode") == 0 else None
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


def worker_state(item: Json) -> Json:
    """The state of a pod's container `worker`; empty before there is one."""
    statuses = (item.get("status") or {}).get("containerStatuses") or ()
    worker: Json = next((entry for entry in statuses if entry.get("name") == WORKER), {})
    return worker.get("state") or {}


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
