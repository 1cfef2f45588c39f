"""Makers of `Observed`: a job of two stages (`adapt`, then `slim`) in the middle of its life; a test changes what it is about."""

import dataclasses
from typing import Any

from kompress_api.contract import StageFailure, StageSuccess
from kompress_api.job import CompressionJobSpec
from kompress_api.merge import merge
from kompress_api.names import attempt_name
from kompress_api.status import Attempt, CompressionJobStatus, Phase, PlanStatus, StageResult, StageState, StageStatus
from kompress_operator.actions import Decision
from kompress_operator.observed import Observed, ObservedAttempt, ObservedJob, ObservedPod
from kompress_operator.reconcile import reconcile
from kompress_operator.times import rfc3339

NOW = 1_800_000_000.0

STAGES: list[dict[str, Any]] = [
    {"name": "adapt", "fineTune": {"strategy": "Full", "epochs": 1}},
    {"name": "slim", "prune": {"pruningRatio": 0.5}},
]


def spec(**fields: Any) -> dict[str, Any]:
    """spec of a manifest; a field of None is left out."""
    whole: dict[str, Any] = {
        "task": "image-classification",
        "model": {"source": "torchvision://resnet18"},
        "dataset": {"source": "builtin://digits"},
        "output": {"uri": "s3://models/flowers"},
        "tracking": {"uri": "http://mlflow:5000"},
        "runtime": {"image": "kompress-jobs:1"},
        "restartPolicy": {"maxRestarts": 3, "windowSeconds": 3600, "backoffSeconds": 10},
        "stages": STAGES,
    }
    return {key: value for key, value in (whole | fields).items() if value is not None}


def observed(
    *attempts: ObservedAttempt, stages: tuple[StageStatus, ...] | None = None, status: dict[str, Any] | None = None, **fields: Any
) -> Observed:
    """A started job whose preflight succeeded; `stages` replaces entries by name, `status` and `spec` add fields."""
    manifest = spec(**fields.pop("spec", {}))
    merged = merge(CompressionJobSpec.model_validate(manifest), None)
    entries = {name: StageStatus(name=name) for name in ("preflight", *(stage.name for stage in merged.stages), "report")}
    entries["preflight"] = succeeded("preflight")
    entries |= {entry.name: entry for entry in stages or ()}
    known: dict[str, Any] = {
        "phase": Phase.RUNNING,
        "started_at": rfc3339(NOW - 100),
        "stages": list(entries.values()),
        "plan": PlanStatus(uri="s3://models/flowers/jobs/uid/plan.json"),
        "spec_digest": "sha256:0",
        "revision": "flowers",
    }
    defaults: dict[str, Any] = {
        "job": ObservedJob(name="flowers", namespace="default", uid="uid", created=NOW - 200, spec=manifest),
        "status": CompressionJobStatus(**(known | (status or {}))),
        "merged": merged.dump(),
        "service": True,
        "attempts": attempts,
    }
    return Observed(**(defaults | fields))


def fresh(**fields: Any) -> Observed:
    """A job that was just created: no status, no merged spec, no objects."""
    manifest = spec(**fields.pop("spec", {}))
    return Observed(job=ObservedJob(name="flowers", namespace="default", uid="uid", created=NOW, spec=manifest), **fields)


def attempt(number: int = 1, outcome: str = "", ago: float = 50, **fields: Any) -> Attempt:
    """A recorded attempt that started `ago` seconds before NOW; with an outcome it ended ten seconds later."""
    ended = {"ended_at": rfc3339(NOW - ago + 10)} if outcome else {}
    return Attempt(**({"attempt": number, "started_at": rfc3339(NOW - ago), "outcome": outcome} | ended | fields))


def entry(name: str, state: str, *attempts: Attempt, **fields: Any) -> StageStatus:
    """A stage's status."""
    return StageStatus(name=name, state=StageState(state), attempts=list(attempts), **fields)


def running(name: str, *before: Attempt, **fields: Any) -> StageStatus:
    """A stage whose newest attempt runs."""
    return entry(name, "Running", *before, attempt(len(before) + 1, **fields))


def succeeded(name: str, **metrics: float) -> StageStatus:
    """A stage that is done."""
    result = StageResult(artifact=f"s3://models/flowers/artifacts/{name}", digest=f"sha256:{name}", key=name, metrics=metrics)
    return entry(name, "Succeeded", attempt(1, "Succeeded", ago=90), result=result)


def job(stage: str, number: int = 1, **fields: Any) -> ObservedAttempt:
    """A Job whose only pod runs since 50 s before NOW."""
    defaults: dict[str, Any] = {"uid": f"uid-{stage}-{number}", "created": NOW - 50, "started": NOW - 50, "nodes": 1, "ready": 1}
    return ObservedAttempt(name=attempt_name("flowers", stage, number), stage=stage, attempt=number, **(defaults | fields))


def complete(stage: str, number: int = 1, **success: Any) -> ObservedAttempt:
    """A Job that succeeded, and what rank 0 said."""
    said = {"artifact": f"s3://models/flowers/artifacts/{stage}", "digest": f"sha256:{stage}", "key": stage} | success
    message = StageSuccess(**said)
    return job(stage, number, ready=0, succeeded=1, complete=True, pods=(pod(0, exit_code=0, finished_at=NOW - 5, termination=message),))


def failed(stage: str, number: int = 1, *pods: ObservedPod, **fields: Any) -> ObservedAttempt:
    """A Job that failed; without `pods` nobody knows why."""
    return job(stage, number, **({"ready": 0, "failed_pods": len(pods), "failed": True, "nodes": max(1, len(pods)), "pods": pods} | fields))


def pod(index: int = 0, **fields: Any) -> ObservedPod:
    """A pod on node `node<index>`."""
    return ObservedPod(**({"name": f"pod-{index}", "index": index, "node": f"node{index}"} | fields))


def crashed(index: int = 0, *, code: int = 1, at: float = 5, **failure: Any) -> ObservedPod:
    """A pod that ended `at` seconds before NOW and told of its first error, by default at the same time."""
    said = {"reason": "ValueError", "message": "boom", "rank": index, "exit_code": code, "time_us": int((NOW - at) * 1e6)} | failure
    return pod(index, exit_code=code, finished_at=NOW - at, termination=StageFailure(**said))


def decided(seen: Observed, now: float = NOW) -> Decision:
    """What `reconcile` says; where it wants its status to be written before it starts something, what it says then."""
    first = reconcile(seen, now)
    if first.requeue_after != 0 or first.status == seen.status:
        return first
    then = reconcile(dataclasses.replace(seen, status=first.status), now)
    return dataclasses.replace(then, actions=(*first.actions, *(action for action in then.actions if action not in first.actions)))


def actions(seen: Observed, now: float = NOW) -> list[Any]:
    """What `reconcile` asks for."""
    return list(decided(seen, now).actions)


def after(seen: Observed, stage: str, now: float = NOW) -> StageStatus:
    """A stage's status after that."""
    found = decided(seen, now).status.stage(stage)
    assert found is not None
    return found
