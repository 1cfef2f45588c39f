"""An attempt whose Job is gone, or goes, without the operator having decided so: someone else deleted it."""

from kompress_api.reasons import MEANING, Reason
from kompress_operator.policies.verdict import End, Running


def vanished(running: Running, now: float) -> End | None:
    """JobDeleted; it spends a restart, as whoever deletes Jobs may go on doing so."""
    if running.job is not None and running.job.deleting is None:
        return None
    return End(outcome=Reason.JOB_DELETED, message=MEANING[Reason.JOB_DELETED])
