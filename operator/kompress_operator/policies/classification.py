"""Why an attempt failed: the root cause among all that its pods say, and whether another attempt can help.

The root cause is the cause of the heaviest kind that came first. A primary error, a disruption and a kill for memory weigh
most; then an orderly interruption (exit code 75), which a disruption of another pod brings about; an aborted collective or
a pod that was stopped because its siblings failed never wins over either. Time is the first error's own, in microseconds;
the end of the container, to the second, only where there is no message (OOM, node lost).

The one with the root cause often ends last: its peers see a closed connection while it still writes down what went wrong. So a
failed pod leaves the others alone, and the attempt is judged when all have ended, or when `LAST_WORDS_SECONDS` are over.
"""

import dataclasses
import enum
import math
from collections.abc import Iterator

from kompress_api.contract import StageFailure
from kompress_api.errors import FREE, PERMANENT, ExitCode
from kompress_api.reasons import MEANING, Reason
from kompress_api.status import Attempt
from kompress_operator.observed import ObservedAttempt, ObservedPod
from kompress_operator.policies.verdict import End, Running
from kompress_operator.times import epoch
from kompress_operator.view import GRACE_SECONDS, View, newest, overdue

DISRUPTIONS = frozenset({Reason.PREEMPTED, Reason.EVICTED, Reason.NODE_LOST})
STOPPED = (128 + 9, 128 + 15)
"""Exit codes of a container that was stopped from outside."""
LAST_WORDS_SECONDS = 30.0
"""How long pods may run on after a sibling has failed. Peers of a dead process notice at once, by the closed connection, and then need
seconds: a traceback, the agent, their last metrics. Over NCCL, or in a loop without collectives, they may never notice; they
would hold their GPUs for nothing."""


class Weight(enum.IntEnum):
    """Of several causes the lightest number wins."""

    PRIMARY = 0
    INTERRUPTED = 1
    SECONDARY = 2


@dataclasses.dataclass(frozen=True)
class Cause:
    """One reason for one pod's end."""

    weight: Weight
    time: float
    pod: ObservedPod
    outcome: str
    message: str
    exit_code: int | None = None
    rank: int | None = None


def failed(running: Running, now: float) -> End | None:
    """How a failed attempt ended, once all its pods have, or those that are left won't say more."""
    job = running.job
    if job is None or not is_over(job, running.record, now):
        return None
    pods = job.pods or ()
    steps = [
        p.termination.checkpoint_step for p in pods if isinstance(p.termination, StageFailure) and p.termination.checkpoint_step is not None
    ]
    step = max(steps, default=running.record.checkpoint_step)
    told = any(isinstance(pod.termination, StageFailure) for pod in pods) or (bool(pods) and not any(pod.started for pod in pods))
    cause = root_cause(pods, now)
    if running.record.disruption and (cause is None or cause.weight is not Weight.PRIMARY):
        reason = Reason(running.record.disruption)
        return End(
            outcome=reason,
            message=MEANING[reason],
            free=True,
            checkpoint_step=step,
            told=told,
            pod=running.record.pod,
            node=running.record.node,
        )
    if cause is None:
        return End(outcome=Reason.PROCESS_FAILED, message=job.message or MEANING[Reason.PROCESS_FAILED], checkpoint_step=step, told=told)
    disrupted = cause.outcome in DISRUPTIONS
    return End(
        outcome=cause.outcome,
        message=cause.message,
        permanent=not disrupted and cause.exit_code in PERMANENT,
        free=disrupted or cause.exit_code in FREE,
        checkpoint_step=step,
        told=told,
        rank=cause.rank,
        pod=cause.pod.name,
        node=cause.pod.node,
        exit_code=cause.exit_code,
    )


def is_over(job: ObservedAttempt, record: Attempt, now: float) -> bool:
    """Whether a failed attempt has no pod left that could still say why in time, or has a pod that nobody can end."""
    if job.failed or any(not pod.ended and overdue(pod.delete_by, now) for pod in job.pods or ()):
        return True
    return record.failing_since is not None and now >= epoch(record.failing_since) + LAST_WORDS_SECONDS


def alarms(view: View, now: float) -> Iterator[float]:
    """When pods that are being deleted will count as lost, and when there was time enough for last words."""
    for job in view.observed.attempts:
        for pod in job.pods or ():
            if not job.ended and not pod.ended and pod.delete_by is not None:
                yield pod.delete_by + GRACE_SECONDS
    for entry in view.status.stages:
        last = newest(entry)
        if last is not None and last.failing_since is not None:
            yield epoch(last.failing_since) + LAST_WORDS_SECONDS


def root_cause(pods: tuple[ObservedPod, ...], now: float) -> Cause | None:
    """The cause that counts; None where no pod shows any."""
    causes = [cause for pod in pods for cause in causes_of(pod, now)]
    return min(causes, key=lambda cause: (cause.weight, cause.time, cause.pod.index), default=None)


def causes_of(pod: ObservedPod, now: float) -> Iterator[Cause]:
    """Every cause that one pod shows."""
    finished = pod.finished_at if pod.finished_at is not None else math.inf
    if pod.disruption is not None:
        began = pod.disrupted_at if pod.disrupted_at is not None else finished
        yield Cause(Weight.PRIMARY, began, pod, pod.disruption, MEANING[pod.disruption], pod.exit_code)
    elif not pod.ended and overdue(pod.delete_by, now):
        yield Cause(Weight.PRIMARY, pod.delete_by or math.inf, pod, Reason.NODE_LOST, MEANING[Reason.NODE_LOST])
    if pod.oom:
        yield Cause(Weight.PRIMARY, finished, pod, Reason.OOM_KILLED, MEANING[Reason.OOM_KILLED], pod.exit_code)
    if isinstance(pod.termination, StageFailure):
        said = pod.termination
        time = said.time_us / 1e6 if said.time_us is not None else finished
        yield Cause(_weight(said), time, pod, said.reason, tell(said), said.exit_code, said.rank)
    elif not pod.oom and pod.exit_code not in (None, ExitCode.DONE):
        code = pod.exit_code
        if code == ExitCode.INTERRUPTED:
            yield Cause(Weight.INTERRUPTED, finished, pod, Reason.INTERRUPTED, MEANING[Reason.INTERRUPTED], code)
        else:
            weight = Weight.SECONDARY if pod.delete_by is not None and code in STOPPED else Weight.PRIMARY
            told = f"{MEANING[Reason.PROCESS_FAILED]} Exit code {code}. {pod.last_words}".strip()
            yield Cause(weight, finished, pod, Reason.PROCESS_FAILED, told, code)


def tell(said: StageFailure) -> str:
    """A failure as `status` shows it: field, what is wrong, what to do, and where it happened."""
    where = f"{said.field}: " if said.field else ""
    hint = f" ({said.hint})" if said.hint else ""
    trace = f"\n{said.trace}" if said.trace else ""
    return f"{where}{said.message}{hint}{trace}"


def _weight(said: StageFailure) -> Weight:
    if said.secondary:
        return Weight.SECONDARY
    return Weight.INTERRUPTED if said.exit_code in FREE else Weight.PRIMARY
