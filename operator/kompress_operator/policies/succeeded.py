"""An attempt whose pods all succeeded has made what rank 0's pod says, or found that there was nothing to reuse."""

from kompress_api.contract import StageSuccess
from kompress_api.names import PREFLIGHT, REPORT
from kompress_api.reasons import MEANING, Reason
from kompress_operator.policies.verdict import End, Running


def succeeded(running: Running, now: float) -> End | None:
    """Succeeded, ReuseMissed, or ProcessFailed where no result was left (the next attempt finds the commit)."""
    job = running.job
    if job is None or not job.done:
        return None
    told = [pod.termination for pod in sorted(job.pods or (), key=lambda pod: pod.index)]
    success = next((message for message in told if isinstance(message, StageSuccess)), None)
    if success is not None and not success.hit:
        return End(outcome=Reason.REUSE_MISSED, message=MEANING[Reason.REUSE_MISSED], free=True)
    if success is None or not made(running.entry.name, success):
        return End(outcome=Reason.PROCESS_FAILED, message="all pods ended with exit code 0, but none told of a result", exit_code=0)
    return End(outcome=Reason.SUCCEEDED, success=success)


def made(stage: str, success: StageSuccess) -> str:
    """URI of what a stage made: the artifact; of `preflight` the plan, of `report` the page."""
    return {PREFLIGHT: success.plan, REPORT: success.report}.get(stage, success.artifact)
