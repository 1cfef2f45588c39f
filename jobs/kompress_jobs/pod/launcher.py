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

from kompress_api.contract import StageFailure, StageSuccess
from kompress_api.errors import KompressError
from kompress_api.names import PREFLIGHT, REPORT
from kompress_jobs.failures import describe
from kompress_jobs.pod import termination
from kompress_jobs.pod.environment import Pod, termination_log
from kompress_jobs.pod.outcome import figures_of_goals, oom_kills, outcome, told
from kompress_jobs.pod.threads import available_cpus, limit_threads
from kompress_jobs.pod.workers import Workers
from kompress_jobs.tracking.parent_run import ParentRun
from kompress_jobs.tracking.publication import Publication
from kompress_jobs.tracking.tracker import Tracker

log = logging.getLogger(__name__)

STOP_SECONDS = 45.0
"""Time that workers get for a checkpoint; a pod's grace is 60 s, and the message and the last metrics need some of it."""
START_STOP_SECONDS = 3.0
"""How long a stopped launcher waits for workers that are just being started."""


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
        return _tell(describe(error))
    try:
        return _tell(*run(pod, stopping))
    except Exception as error:
        log.exception("the launcher failed")
        return _tell(describe(error))


def run(pod: Pod, stopping: threading.Event) -> tuple[StageSuccess | StageFailure | None, tuple[str, ...]]:
    """What this pod has to say, and the figures that must be in it; None: all is well, and rank 0's pod tells."""
    processes = pod.processes or gpus() or 1
    limit_threads(os.environ, processes, available_cpus())
    killed_before = oom_kills()
    workers = Workers(pod, processes, ["-m", "kompress_jobs.pod.worker", str(pod.scratch)])
    tracker = tracker_of(pod, stopping)
    workers.start()
    if tracker is not None:
        tracker.start()
    wait(workers, stopping)
    message = outcome(pod, workers, stopped=stopping.is_set(), oom=oom_kills() > killed_before)
    if tracker is not None:
        message = tracker.finish(message)
    keep = figures_of_goals(pod.input.goals, pod.input.stage)
    if isinstance(message, StageSuccess):
        message = message.model_copy(update={"metrics": told(message.metrics, keep)})
    if tracker is None or tracker.all_kept:
        shutil.rmtree(pod.scratch, ignore_errors=True)
    return message, keep


def wait(workers: Workers, stopping: threading.Event) -> None:
    """Return when no worker runs any more; on SIGTERM workers get `STOP_SECONDS` for a checkpoint."""
    while not workers.finished.wait(0.1):
        if stopping.is_set():
            break
    else:
        return
    log.info("asked to stop: passing it on to the workers")
    workers.stop()
    if workers.started.wait(START_STOP_SECONDS) and not workers.finished.wait(STOP_SECONDS):
        log.error("the workers did not end within %.0f s and are killed", STOP_SECONDS)
        workers.kill()
        workers.finished.wait(START_STOP_SECONDS)


def tracker_of(pod: Pod, stopping: threading.Event) -> Tracker | ParentRun | Publication | None:
    """Who tells MLflow of this pod's stage; pod 0 alone does."""
    if pod.index != 0:
        return None
    if pod.input.kind == PREFLIGHT:
        return ParentRun(pod.input, stopping)
    if pod.input.kind == REPORT:
        return Publication(pod.input, pod.scratch, stopping)
    return Tracker(pod.input, pod.scratch)


def gpus() -> int:
    """GPUs that this pod sees."""
    import torch

    return torch.cuda.device_count()


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
