"""Objects that can't be made: a name that is taken, a refusal of the API server.

What may pass by itself (an object of a deleted job of the same name, a quota) is waited for and shown; the rest fails the
job, as another try would be refused in the same way.
"""

from collections.abc import Iterator

from kompress_api.names import REPORT
from kompress_operator.policies.verdict import Course, Verdict
from kompress_operator.view import View

LOOK_AGAIN_SECONDS = 2.0


def refused(view: View, now: float) -> Verdict | None:
    """NameTaken or CreateRefused; the report's own are the report's failure."""
    for obstacle in view.observed.obstacles:
        if not obstacle.passing and obstacle.stage != REPORT:
            return Verdict(Course.FAIL, obstacle.reason, f"{obstacle.kind} {obstacle.name}: {obstacle.message}")
    return None


def blocked(view: View, now: float) -> Verdict | None:
    """Nothing is started while an obstacle may still pass."""
    for obstacle in view.observed.obstacles:
        if obstacle.passing:
            return Verdict(Course.WAIT, obstacle.reason, f"{obstacle.kind} {obstacle.name}: {obstacle.message}")
    return None


def alarms(view: View, now: float) -> Iterator[float]:
    """Soon: nothing tells when an obstacle has passed."""
    if not view.status.phase.finished and any(obstacle.passing for obstacle in view.observed.obstacles):
        yield now + LOOK_AGAIN_SECONDS
