"""`python -m kompress_jobs`: one pod's part of a stage, from its environment to its termination message and exit code.

It starts the worker processes under torchrun's agent, passes SIGTERM on to them, tracks (pod 0 of a stage that trains or
exports), and tells the end. It does nothing of the stage's own work, and never decides about another attempt.
"""

import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Mapping

from kompress_api.contract import StageFailure, StageSuccess
from kompress_api.errors import ExitCode, KompressError
from kompress_api.names import PREFLIGHT, REPORT
from kompress_jobs import termination
from kompress_jobs.outcome import figures_of_goals, oom_kills, outcome, told
from kompress_jobs.pod import Pod, termination_log
from kompress_jobs.threads import available_cpus, limit_threads
from kompress_jobs.tracking.tracker import Tracker
from kompress_jobs.workers import Workers

log = logging.getLogger(__name__)

STOP_SECONDS = 45.0
"""Time that workers get for a checkpoint; a pod's grace is 60 s, and the message and the last metrics need some of it."""
START_STOP_SECONDS = 3.0
"""How long a stopped launcher waits for workers that are just being started."""
FLUSH_SECONDS = {"FINISHED": 30.0, "FAILED": 15.0, "KILLED": 8.0}
"""How long the last metrics may take, by how the stage ended."""


def main() -> int:
    """Run this pod's part; returns the exit code (`kompress_api.errors.ExitCode`)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        pod = Pod.read(os.environ)
        shutil.rmtree(pod.scratch, ignore_errors=True)
        pod.scratch.mkdir(parents=True)
    except (KompressError, OSError) as error:
        return _tell(termination.describe(error))
    try:
        return _tell(*run(pod, stopping))
    except Exception as error:
        log.exception("the launcher failed")
        return _tell(termination.describe(error))


def run(pod: Pod, stopping: threading.Event) -> tuple[StageSuccess | StageFailure | None, tuple[str, ...]]:
    """What this pod has to say, and the figures that must be in it; None: all is well, and rank 0's pod tells."""
    processes = pod.processes or gpus() or 1
    limit_threads(os.environ, processes, available_cpus())
    killed_before = oom_kills()
    workers = Workers(pod, processes, ["-m", "kompress_jobs.worker", str(pod.scratch)])
    tracker = Tracker(pod.input, pod.scratch) if pod.index == 0 and pod.input.kind not in (PREFLIGHT, REPORT) else None
    workers.start()
    if tracker is not None:
        tracker.start()
    wait(workers, stopping)
    message = outcome(pod, workers, stopped=stopping.is_set(), oom=oom_kills() > killed_before)
    if tracker is not None:
        message = finish_tracking(tracker, message)
    keep = figures_of_goals(pod.input.goals, pod.input.stage)
    if isinstance(message, StageSuccess):
        message = message.model_copy(update={"metrics": told(message.metrics, keep)})
    if tracker is None or tracker.all_kept:
        shutil.rmtree(pod.scratch, ignore_errors=True)
    return message, keep


def wait(workers: Workers, stopping: threading.Event) -> None:
    """Return when no worker runs any more; on SIGTERM workers get `STOP_SECONDS` for a checkpoint."""
    while not stopping.wait(0.2):
        if workers.finished.is_set():
            return
    log.info("asked to stop: passing it on to the workers")
    workers.stop()
    if workers.started.wait(START_STOP_SECONDS) and not workers.finished.wait(STOP_SECONDS):
        log.error("the workers did not end within %.0f s and are killed", STOP_SECONDS)
        workers.kill()
        workers.finished.wait(START_STOP_SECONDS)


def finish_tracking(tracker: Tracker, message: StageSuccess | StageFailure | None) -> StageSuccess | StageFailure | None:
    """End the attempt's run, and name it in the result."""
    if isinstance(message, StageSuccess):
        tags = {"artifact": message.artifact, "digest": message.digest, "key": message.key, "reused": str(message.reused).lower()}
        run = tracker.finish("FINISHED", seconds=FLUSH_SECONDS["FINISHED"], result=message, tags=_tags(tags))
        return message.model_copy(update={"mlflow_run_id": run})
    if message is not None:
        status = "KILLED" if message.exit_code == ExitCode.INTERRUPTED else "FAILED"
        tags = {"reason": message.reason, "message": message.message, "rank": "" if message.rank is None else str(message.rank)}
        tracker.finish(status, seconds=FLUSH_SECONDS[status], tags=_tags(tags))
    return message


def gpus() -> int:
    """GPUs that this pod sees."""
    import torch

    return torch.cuda.device_count()


def _tags(values: Mapping[str, str]) -> dict[str, str]:
    return {f"kompress.{name}": value for name, value in values.items() if value}


def _tell(message: StageSuccess | StageFailure | None, keep: tuple[str, ...] = ()) -> int:
    """Leave the message; returns the exit code."""
    if isinstance(message, StageFailure):
        where = f"{message.field}: " if message.field else ""
        log.error("%s: %s%s%s", message.reason, where, message.message, f" (hint: {message.hint})" if message.hint else "")
    if message is not None:
        try:
            termination.write(message, termination_log(), keep=keep)
        except OSError as error:
            log.error("the termination message could not be written to %s: %s", termination_log(), error)
    return message.exit_code if isinstance(message, StageFailure) else 0
