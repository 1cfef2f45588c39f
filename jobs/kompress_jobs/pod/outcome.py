"""How a pod's part ended: rank 0's result, or the root cause among the processes of this pod, and the figures that are told."""

import signal
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from kompress_api.contract import StageFailure, StageSuccess
from kompress_api.errors import ExitCode
from kompress_api.goals import BASELINE_PREFIX, SOURCE_PREFIX, Goal
from kompress_api.reasons import Reason
from kompress_api.stages.stage import Stage
from kompress_api.status import MAX_FIGURES
from kompress_jobs.failures import MAX_MESSAGE, cut, describe
from kompress_jobs.pod import termination
from kompress_jobs.pod.environment import Pod
from kompress_jobs.pod.workers import Ended, Workers

MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")


def outcome(pod: Pod, workers: Workers, *, stopped: bool, oom: bool) -> StageSuccess | StageFailure | None:
    """The result of rank 0, or the root cause among this pod's processes."""
    if workers.finished.is_set() and workers.error is None and not workers.ended:
        if pod.index != 0:
            return None
        try:
            return StageSuccess.model_validate_json((pod.scratch / termination.RESULT).read_bytes())
        except (OSError, ValidationError) as error:
            return failure(Reason.PROCESS_FAILED, f"rank 0 ended well but left no result: {error}", rank=0)
    told_by_workers = termination.recorded(pod.scratch)
    failures = list(told_by_workers)
    known = {entry.rank for entry in told_by_workers}
    silent = [ended for ended in workers.ended if ended.rank not in known]
    failures += [silent_death(ended, first=ended is silent[0], stopped=stopped, oom=oom) for ended in silent]
    if workers.error is not None:
        failures.append(describe(workers.error))
    if stopped and not failures:
        failures.append(failure(Reason.INTERRUPTED, "stopped before the workers had started", code=ExitCode.INTERRUPTED, secondary=True))
    root = termination.root_cause(failures) or failure(Reason.PROCESS_FAILED, "the workers ended without saying why")
    steps = [entry.checkpoint_step for entry in failures if entry.checkpoint_step is not None]  # one process of a pod looks
    return root.model_copy(update={"checkpoint_step": max(steps, default=None)})


def silent_death(ended: Ended, *, first: bool, stopped: bool, oom: bool) -> StageFailure:
    """A worker that ended without a record. Only the first to be killed counts: the agent kills the others after it."""
    number = -ended.exit_code if ended.exit_code < 0 else 0
    name = signal.Signals(number).name if number else ""
    if stopped and number in (signal.SIGTERM, signal.SIGKILL):
        text = f"rank {ended.rank} was stopped before it had saved a checkpoint"
        return failure(Reason.INTERRUPTED, text, rank=ended.rank, time_us=ended.time_us, code=ExitCode.INTERRUPTED, secondary=True)
    if number == signal.SIGKILL and oom:
        text, reason = f"rank {ended.rank} used more memory than the pod's limit and was killed (SIGKILL)", Reason.OOM_KILLED
        hint = "raise runtime.resources.limits.memory, or lower batchSize"
    elif number:
        text, reason = f"rank {ended.rank} was killed by {name}", Reason.PROCESS_FAILED
        hint = (
            "see the pod's log" if number != signal.SIGKILL else "someone or something killed the process: memory of the node, or a person"
        )
    else:
        text, reason = f"rank {ended.rank} ended with exit code {ended.exit_code} before it could say why", Reason.PROCESS_FAILED
        hint = "see the pod's log: the image may lack a package"
    return failure(
        reason,
        text,
        hint=hint,
        rank=ended.rank,
        time_us=ended.time_us,
        code=128 + number if number else ended.exit_code,
        secondary=number == signal.SIGTERM or (number == signal.SIGKILL and not first),
    )


def failure(
    reason: Reason,
    message: str,
    *,
    hint: str = "",
    rank: int | None = None,
    time_us: int | None = None,
    code: int = ExitCode.SOFTWARE,
    secondary: bool = False,
) -> StageFailure:
    """What the launcher itself has to say."""
    return StageFailure(
        reason=reason.value,
        message=cut(message, MAX_MESSAGE),
        hint=hint,
        rank=rank,
        time_us=time_us or time.time_ns() // 1000,
        exit_code=int(code),
        secondary=secondary,
    )


def figures_of_goals(goals: list[Goal], stage: Stage | None) -> tuple[str, ...]:
    """Names of the figures that goals read."""
    return tuple(goal.figure(stage.export if stage else None) for goal in goals)


def told(figures: Mapping[str, float], keep: tuple[str, ...]) -> dict[str, float]:
    """The figures for the termination message: those that goals read, with the baseline's, and the plain ones; the manifest has all."""
    prefixes = ("", BASELINE_PREFIX, SOURCE_PREFIX)
    named = {name for name in figures if name.removeprefix(BASELINE_PREFIX) in keep}
    plain = [name for prefix in prefixes for name in sorted(figures) if "@" not in name and name.rpartition(".")[0] == prefix.rstrip(".")]
    chosen = [*sorted(named), *(name for name in plain if name not in named)][:MAX_FIGURES]
    return {name: figures[name] for name in chosen}


def oom_kills(events: Path = MEMORY_EVENTS) -> int:
    """How often the kernel has killed a process of this container for its memory (cgroup v2)."""
    try:
        counts = dict(line.split() for line in events.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(counts.get("oom_kill", 0))
