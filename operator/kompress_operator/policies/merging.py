"""A job whose spec can't be merged into one that runs fails before anything is made: InvalidSpec, RuntimeNotFound, NoOutput, SpecTooLarge.

The two that a ClusterCompressionRuntime would mend wait a few seconds, as `kubectl apply -f folder/` makes the objects of a
folder one after the other.
"""

from collections.abc import Iterator

from kompress_api.reasons import Reason
from kompress_operator.policies.verdict import Course, Verdict
from kompress_operator.view import View

GRACE_SECONDS = 5.0
MENDABLE = frozenset({Reason.RUNTIME_NOT_FOUND, Reason.NO_OUTPUT})


def not_mergeable(view: View, now: float) -> Verdict | None:
    """Why there is no spec that runs. A suspended job has not been started: its runtime may still change."""
    if view.trouble is None or (view.suspended and view.trouble.reason != Reason.INVALID_SPEC):
        return None
    waits = now < _grace_ends(view) and view.trouble.reason in MENDABLE
    return Verdict(Course.WAIT if waits else Course.FAIL, view.trouble.reason, view.trouble.message)


def alarms(view: View, now: float) -> Iterator[float]:
    """When the runtime should have been there."""
    if view.trouble is not None and not view.status.phase.finished:
        yield _grace_ends(view)


def _grace_ends(view: View) -> float:
    return view.observed.job.created + GRACE_SECONDS
