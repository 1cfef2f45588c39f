"""A small cluster in memory: what `act` would do to it, what a kubelet and a Job controller do, and what can be read of it.

The time of its clock only moves when a test says so. Every creation is kept in a journal, so that a test can tell what was
done twice.
"""

import dataclasses
from typing import Any

from kompress_api.contract import StageFailure, StageSuccess
from kompress_api.names import attempt_name
from kompress_api.status import Attempt, CompressionJobStatus
from kompress_operator.actions import Action, CreateAttempt, CreateRevision, CreateService, Decision, DeleteAttempt, DeleteService
from kompress_operator.observed import Observed, ObservedAttempt, ObservedJob, ObservedPod
from kompress_operator.reconcile import reconcile


class Crash(Exception):
    """The operator is killed."""


class Stale(Exception):
    """The status was written since it was read (409)."""


@dataclasses.dataclass
class World:
    """One CompressionJob and all that belongs to it."""

    spec: dict[str, Any]
    now: float = 1_800_000_000.0
    status: CompressionJobStatus = dataclasses.field(default_factory=CompressionJobStatus)
    version: int = 1
    generation: int = 1
    merged: dict[str, Any] | None = None
    service: bool = False
    attempts: dict[str, ObservedAttempt] = dataclasses.field(default_factory=dict)
    created: list[str] = dataclasses.field(default_factory=list)
    """Names of the attempts that were ever created, in order."""
    writes: int = 0
    """Status writes and actions that changed something."""

    def read(self) -> tuple[Observed, int]:
        """What the API server holds now, and the version of the job."""
        job = ObservedJob(name="flowers", namespace="ml", uid="uid", created=1_800_000_000.0, spec=self.spec, generation=self.generation)
        attempts = tuple(self.attempts.values())
        return Observed(job=job, status=self.status, merged=self.merged, service=self.service, attempts=attempts), self.version

    def set_spec(self, **fields: Any) -> None:
        """The user edits the job."""
        self.spec = self.spec | fields
        self.generation += 1
        self.version += 1

    def run_pass(self, *, crash_after: int | None = None, seen: tuple[Observed, int] | None = None) -> Decision:
        """One pass of the operator; `crash_after` kills it after that many actions, `seen` is an older observation."""
        observed, version = seen or self.read()
        decision = reconcile(observed, self.now)
        for done, action in enumerate(decision.actions):
            if crash_after == done:
                raise Crash
            self.perform(action)
        if crash_after is not None and crash_after <= len(decision.actions):
            raise Crash
        if decision.status != observed.status:
            if version != self.version:
                raise Stale
            self.status = decision.status
            self.version += 1
            self.writes += 1
        return decision

    def perform(self, action: Action) -> None:
        """What `act.py` does, on this world."""
        match action:
            case CreateRevision():
                if self.merged is not None:
                    return
                self.merged = action.data
            case CreateService():
                if self.service:
                    return
                self.service = True
            case CreateAttempt():
                name = attempt_name("flowers", action.stage, action.attempt)
                if name in self.attempts:
                    return
                self.created.append(name)
                self.attempts[name] = ObservedAttempt(
                    name=name,
                    stage=action.stage,
                    attempt=action.attempt,
                    uid=f"{name}-{len(self.created)}",
                    created=self.now,
                    started=self.now,
                )
            case DeleteAttempt():
                found = self.attempts.get(action.name)
                if found is None or found.uid != action.uid or found.deleting is not None:
                    return
                if found.ended:
                    del self.attempts[action.name]
                elif found.failed_pods:
                    record = self.record_of(found)
                    assert record is None or record.outcome, "what failed pods said is destroyed before the status holds it"
                    self.attempts[action.name] = dataclasses.replace(found, deleting=self.now, terminating=1)
                else:
                    self.attempts[action.name] = dataclasses.replace(found, deleting=self.now, terminating=1)
            case DeleteService():
                self.service = False
        self.writes += 1

    @property
    def alive(self) -> list[ObservedAttempt]:
        """Attempts whose pods run."""
        return [attempt for attempt in self.attempts.values() if not attempt.ended]

    @property
    def whole(self) -> list[ObservedAttempt]:
        """Those that no pod has failed of."""
        return [attempt for attempt in self.alive if not attempt.failed_pods]

    def start_pods(self, name: str) -> None:
        """All pods of an attempt run."""
        self._change(name, ready=1)

    def succeed(self, name: str, **said: Any) -> None:
        """The last pod of an attempt ends well; so does the attempt, unless another one has failed."""
        stage = self.attempts[name].stage
        usual: dict[str, Any] = {"artifact": f"s3://bucket/{stage}", "digest": f"sha256:{stage}", "key": stage}
        usual |= (
            {"plan": "s3://bucket/plan.json"}
            if stage == "preflight"
            else {"report": "s3://bucket/report.html"}
            if stage == "report"
            else {}
        )
        pod = ObservedPod(name=f"{name}-0", index=0, exit_code=0, finished_at=self.now, termination=StageSuccess(**(usual | said)))
        self._end(name, pod)

    def fail(self, name: str, code: int = 1, **said: Any) -> None:
        """The last pod of an attempt ends badly, and with it the attempt."""
        self._end(name, self._crashed(name, code, **said))

    def fail_first(self, name: str, code: int = 1, **said: Any) -> None:
        """One pod of two ends badly. The Job controller leaves the other alone (`backoffLimitPerIndex: 0`): ending it is ours."""
        first = dataclasses.replace(self._crashed(name, code, **said), name=f"{name}-1", index=1)
        self._change(name, nodes=2, ready=1, failed_pods=1, pods=(first, ObservedPod(name=f"{name}-0", index=0)))

    def disrupt(self, name: str, reason: Any) -> None:
        """The last pod of an attempt is removed, and takes its last words with it."""
        self._end(name, ObservedPod(name=f"{name}-0", index=0, disruption=reason, disrupted_at=self.now, finished_at=self.now))

    def finish_deletion(self, name: str) -> None:
        """The pods of an attempt that is being deleted are gone, and so is its Job."""
        assert self.attempts[name].deleting is not None
        del self.attempts[name]

    def _crashed(self, name: str, code: int, **said: Any) -> ObservedPod:
        failure = StageFailure(**({"reason": "ValueError", "message": "boom", "exit_code": code, "time_us": int(self.now * 1e6)} | said))
        return ObservedPod(name=f"{name}-0", index=0, exit_code=code, finished_at=self.now, termination=failure)

    def _end(self, name: str, pod: ObservedPod) -> None:
        """No pod runs any more, and the Job controller says what that means: one failed index fails the Job."""
        pods = (*(other for other in self.attempts[name].pods or () if other.ended), pod)
        failed = sum(other.exit_code != 0 for other in pods)
        succeeded = len(pods) - failed
        self._change(name, ready=0, succeeded=succeeded, failed_pods=failed, complete=not failed, failed=failed > 0, pods=pods)

    def record_of(self, attempt: ObservedAttempt) -> Attempt | None:
        """What the status holds of an attempt."""
        entry = self.status.stage(attempt.stage)
        return next((known for known in entry.attempts if known.attempt == attempt.attempt), None) if entry is not None else None

    def _change(self, name: str, **fields: Any) -> None:
        self.attempts[name] = dataclasses.replace(self.attempts[name], **fields)
