"""Carries out what `reconcile` asks for. Every action can be repeated: what is there already is adopted when the owner is this job.

What is in the way comes back as obstacles, for `reconcile` to judge; nothing is decided here. One status write a pass
carries uid and resourceVersion, so that it can only land on what was observed.
"""

from collections.abc import Sequence
from typing import Any

from kompress_api.contract import JobIdentity
from kompress_api.errors import KompressError
from kompress_api.merge import MergedSpec
from kompress_api.names import API_VERSION, FIELD_MANAGER, KIND, LABEL_JOB, LABEL_MANAGED_BY, attempt_name, service_name
from kompress_api.reasons import Reason
from kompress_api.status import CompressionJobStatus
from kompress_operator.actions import Action, CreateAttempt, CreateRevision, CreateService, DeleteAttempt, DeleteService
from kompress_operator.api import AlreadyExists, Api, Conflict, Forbidden, Json, NotFound, Refused
from kompress_operator.launch.app import build_app
from kompress_operator.launch.inputs import build_input
from kompress_operator.launch.objects import Placement, build_objects, build_service, owner_reference
from kompress_operator.metrics import Metrics
from kompress_operator.observe import Snapshot, job_path, jobs_path, revision_path, service_path
from kompress_operator.observed import Obstacle
from kompress_operator.translation import Key, owned, taken

DIGEST_ANNOTATION = "kompress.io/spec-digest"


async def act(
    api: Api, key: Key, snapshot: Snapshot, actions: Sequence[Action], status: CompressionJobStatus, metrics: Metrics
) -> tuple[Obstacle, ...]:
    """Do `actions` in order, up to the first obstacle. `status` is the one that this pass will write: inputs of stages stand in it.

    Raises Conflict where the observation turns out to be stale, Unreachable where the API server can't be asked.
    """
    merged = snapshot.observed.merged
    for action in actions:
        obstacle: Obstacle | None = None
        match action:
            case CreateRevision():
                merged = action.data
                obstacle = await _create_revision(api, key, action)
            case CreateService():
                obstacle = await _create(api, key, "Service", service_path(key.namespace), build_service(_placement(key, key.name), {}))
            case CreateAttempt():
                assert merged is not None
                obstacle = await _create_attempt(api, key, snapshot, MergedSpec.model_validate(merged), action, status)
                if obstacle is None:
                    metrics.started(action)
            case DeleteAttempt():
                await _delete(api, f"{jobs_path(key.namespace)}/{action.name}", action.uid)
            case DeleteService():
                await _delete(api, service_path(key.namespace, action.name))
        if obstacle is not None:
            return (obstacle,)
    return ()


async def write_status(api: Api, key: Key, snapshot: Snapshot, status: CompressionJobStatus) -> None:
    """Server-side apply on /status. Raises Conflict when the job has changed since it was observed."""
    body = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": key.uid, "resourceVersion": snapshot.resource_version},
        "status": status.dump(),
    }
    await api.apply(f"{job_path(key.namespace, key.name)}/status", body, FIELD_MANAGER)


async def _create_revision(api: Api, key: Key, action: CreateRevision) -> Obstacle | None:
    body = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": action.name,
            "namespace": key.namespace,
            "labels": {LABEL_MANAGED_BY: "kompress", LABEL_JOB: key.name},
            "annotations": {DIGEST_ANNOTATION: action.digest},
            "ownerReferences": [owner_reference(_owner(key))],
        },
        "data": action.data,
        "revision": 1,
    }
    try:
        await api.create(revision_path(key.namespace), body)
    except AlreadyExists:
        found = await api.get(revision_path(key.namespace, action.name))
        if not owned(found, key.uid):
            return taken("ControllerRevision", found, key)
        if (found["metadata"].get("annotations") or {}).get(DIGEST_ANNOTATION) != action.digest:
            raise Conflict(f"the merged spec of {key.name} was fixed meanwhile") from None
    except Refused as problem:
        return _refusal("ControllerRevision", action.name, problem.message)
    except Forbidden as problem:
        return _refusal("ControllerRevision", action.name, problem.message, passing=True)
    return None


async def _create_attempt(
    api: Api, key: Key, snapshot: Snapshot, merged: MergedSpec, action: CreateAttempt, status: CompressionJobStatus
) -> Obstacle | None:
    name = attempt_name(key.name, action.stage, action.attempt)
    try:
        stage_input = build_input(
            JobIdentity(name=key.name, namespace=key.namespace, uid=key.uid),
            merged,
            status,
            action.stage,
            action.attempt,
            reuse=action.reuse,
        )
        _, job = build_objects(build_app(merged, stage_input, labels=snapshot.labels), _placement(key, name))
    except KompressError as error:
        return _refusal("Job", name, str(error), stage=action.stage)
    return await _create(api, key, "Job", jobs_path(key.namespace), job, action.stage)


async def _create(api: Api, key: Key, kind: str, path: str, body: Json, stage: str = "") -> Obstacle | None:
    name = body["metadata"]["name"]
    try:
        await api.create(path, body)
    except AlreadyExists:
        try:
            found = await api.get(f"{path}/{name}")
        except NotFound:
            raise Conflict(f"{kind} {name} has just gone") from None
        mine = owned(found, key.uid) and "deletionTimestamp" not in found["metadata"]
        return None if mine else taken(kind, found, key, stage)
    except Refused as problem:
        return _refusal(kind, name, problem.message, stage=stage)
    except (Forbidden, NotFound) as problem:  # a quota, or a namespace that ends
        return _refusal(kind, name, problem.message, stage=stage, passing=True)
    return None


async def _delete(api: Api, path: str, uid: str = "") -> None:
    """Foreground: a Job stays visible until its pods are gone, so that its successor knows when they are."""
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    if uid:
        options["preconditions"] = {"uid": uid}
    try:
        await api.delete(path, options)
    except (NotFound, Conflict):  # gone, or another object by now
        return


def _refusal(kind: str, name: str, message: str, *, stage: str = "", passing: bool = False) -> Obstacle:
    return Obstacle(kind=kind, name=name, reason=Reason.CREATE_REFUSED, message=message, passing=passing, stage=stage)


def _owner(key: Key) -> dict[str, str]:
    return {"apiVersion": API_VERSION, "kind": KIND, "name": key.name, "uid": key.uid}


def _placement(key: Key, name: str) -> Placement:
    return Placement(
        name=name,
        namespace=key.namespace,
        service=service_name(key.name),
        selector={LABEL_JOB: key.name},
        owner=_owner(key),
        watched=True,
    )
