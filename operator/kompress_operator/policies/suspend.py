"""`spec.suspend`: what runs is stopped gracefully (it saves a checkpoint; preflight and report just start anew later)."""

from kompress_api.reasons import MEANING, Reason
from kompress_operator.policies.verdict import Course, Verdict
from kompress_operator.view import View


def suspend(view: View, now: float) -> Verdict | None:
    """Suspended, for as long as the user wants it."""
    if not view.suspended:
        return None
    running = sum(not job.ended for job in view.observed.attempts)
    still = f" Attempts that are still being stopped: {running}." if running else ""
    return Verdict(Course.SUSPEND, Reason.SUSPENDED, MEANING[Reason.SUSPENDED] + still)
