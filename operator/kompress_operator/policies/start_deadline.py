"""Not all pods run in time: the attempt ends, its GPUs are free for others, and it is tried again after its backoff.

It is the guard of a cluster without gang scheduling against two half-started gangs that wait for each other, and it names
what the pods wait for. A Job that a queue holds back is not late.
"""

from collections.abc import Iterator

from kompress_api.reasons import Reason
from kompress_api.status import StageState
from kompress_operator.observed import ObservedAttempt
from kompress_operator.policies.verdict import End, Running
from kompress_operator.view import View

IMAGE_REASONS = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable", "ImageInspectError"}
)
LOOK_AGAIN_SECONDS = 15.0
"""How often a starting attempt's pods are looked at, for what they wait for."""


def start_deadline(running: Running, now: float) -> End | None:
    """ImagePullBackOff, Unschedulable or StartupDeadlineExceeded."""
    job = running.job
    at = deadline_at(running.view, job) if job is not None else None
    if job is None or at is None or now < at or not starting(job):
        return None
    pod = next((pod for pod in job.pods or () if not pod.started and pod.waiting), None)
    reason, waits = what_it_waits_for(job)
    limit = running.view.merged.startup_deadline_seconds if running.view.merged is not None else 0
    return End(
        outcome=reason,
        message=f"not all of {job.nodes} pods ran within {limit} s: {waits}",
        pod=pod.name if pod else "",
        node=pod.node if pod else "",
    )


def deadline_at(view: View, job: ObservedAttempt) -> float | None:
    """When an attempt must run as a whole; None while a queue holds it back."""
    if view.merged is None or job.queued or job.started is None:
        return None
    return job.started + view.merged.startup_deadline_seconds


def late(job: ObservedAttempt, now: float) -> bool:
    """Whether pods are missing for so long that people want to know what for."""
    return starting(job) and now >= (job.started or job.created) + LOOK_AGAIN_SECONDS


def starting(job: ObservedAttempt) -> bool:
    """Whether pods are missing that have never run."""
    if job.ended or job.failed_pods or job.queued or job.ready + job.succeeded >= job.nodes:
        return False
    return job.pods is None or sum(pod.started for pod in job.pods) < job.nodes


def what_it_waits_for(job: ObservedAttempt) -> tuple[Reason, str]:
    """A late attempt's typed reason, and the same for people."""
    waiting = [pod for pod in job.pods or () if not pod.started]
    for pod in waiting:
        if pod.waiting in IMAGE_REASONS:
            return Reason.IMAGE_PULL_BACK_OFF, f"{pod.name}: {pod.waiting}: {pod.waiting_message}"
    for pod in waiting:
        if not pod.scheduled:
            return Reason.UNSCHEDULABLE, f"{pod.name}: {pod.waiting_message or 'no node fits'}"
    for pod in waiting:
        if pod.waiting:
            return Reason.STARTUP_DEADLINE_EXCEEDED, f"{pod.name}: {pod.waiting}: {pod.waiting_message}"
    started = job.nodes - len(waiting) if job.pods else job.ready
    return Reason.STARTUP_DEADLINE_EXCEEDED, f"{started} of {job.nodes} pods run"


def alarms(view: View, now: float) -> Iterator[float]:
    """When an attempt is late for good, and before that, when to look what it waits for."""
    for entry in view.status.stages:
        for job in view.jobs_of(entry.name):
            if entry.state is StageState.RUNNING and job.attempt == entry.attempts[-1].attempt and starting(job):
                yield now + LOOK_AGAIN_SECONDS
                if (at := deadline_at(view, job)) is not None:
                    yield at
