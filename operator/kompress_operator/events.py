"""Kubernetes Events for `kubectl describe`: how each attempt ended, and how the job did.

Told once: an Event's name derives from what it tells, so that an operator that says it again (after a restart, or beside
another one) finds it there. Events are lost without harm; the status holds the same.
"""

import dataclasses
import datetime
import hashlib
from collections.abc import Iterator

from kompress_api.names import API_VERSION, KIND
from kompress_api.reasons import Reason
from kompress_api.status import Attempt, CompressionJobStatus, Phase
from kompress_operator.api import AlreadyExists, Api, Json
from kompress_operator.limits import clip
from kompress_operator.translation import Key

ORDINARY = frozenset({Reason.SUCCEEDED, Reason.CANCELLED, Reason.REUSE_MISSED})
MAX_NOTE = 1024


@dataclasses.dataclass(frozen=True)
class News:
    """One thing to tell."""

    about: str
    """What it is about: two pieces of news about the same are one."""
    reason: str
    note: str
    warning: bool


def news(before: CompressionJobStatus, after: CompressionJobStatus) -> Iterator[News]:
    """What a status write tells for the first time."""
    for stage, attempt in new_ends(before, after):
        where = f" ({attempt.pod} on {attempt.node})" if attempt.pod and attempt.node else ""
        note = f"{stage}, attempt {attempt.attempt}{where}: {attempt.message or attempt.outcome}"
        yield News(f"{stage}-{attempt.attempt}", attempt.outcome, note, attempt.outcome not in ORDINARY)
    if after.phase.finished and not before.phase.finished:
        end = next(entry for entry in after.conditions if entry.type == after.phase.value)
        yield News("end", end.reason, end.message, after.phase is Phase.FAILED)


def new_ends(before: CompressionJobStatus, after: CompressionJobStatus) -> Iterator[tuple[str, Attempt]]:
    """Stage and attempt of each end that `before` did not have."""
    known = {(entry.name, attempt.attempt) for entry in before.stages for attempt in entry.attempts if attempt.outcome}
    for entry in after.stages:
        for attempt in entry.attempts:
            if attempt.outcome and (entry.name, attempt.attempt) not in known:
                yield entry.name, attempt


async def tell(api: Api, key: Key, instance: str, piece: News) -> None:
    """Make the Event, unless it is there. Raises ApiProblem."""
    try:
        await api.create(f"/apis/events.k8s.io/v1/namespaces/{key.namespace}/events", build_event(key, instance, piece, _now()))
    except AlreadyExists:
        return


def build_event(key: Key, instance: str, piece: News, time: str) -> Json:
    """The Event of one piece of news; `time` is RFC 3339 with microseconds."""
    name = hashlib.sha256(f"{key.uid}/{piece.about}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{key.name}.{name}", "namespace": key.namespace},
        "eventTime": time,
        "reportingController": "kompress.io/operator",
        "reportingInstance": instance[:128],
        "action": "Reconcile",
        "reason": piece.reason,
        "note": clip(piece.note, MAX_NOTE),
        "type": "Warning" if piece.warning else "Normal",
        "regarding": {"apiVersion": API_VERSION, "kind": KIND, "name": key.name, "namespace": key.namespace, "uid": key.uid},
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
