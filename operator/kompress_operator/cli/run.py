"""`kompress run` and `kompress plan`: a job, or its preflight alone, on this machine."""

import json
import os
import pathlib
import time
from typing import NoReturn

import typer

from kompress_api.errors import KompressError
from kompress_api.job import CompressionJobSpec
from kompress_api.manifest import CompressionJob
from kompress_api.merge import MergedSpec
from kompress_api.status import CompressionJobStatus, Phase, StageState
from kompress_operator.cli.exits import Exit, exit_of, fail, fail_with, reason_of, say
from kompress_operator.cli.manifests import read_job
from kompress_operator.cli.plan import plan_table, read_plan
from kompress_operator.cli.progress import LiveProgress
from kompress_operator.cli.tables import console, goals_table, model_of, report_of, stages_table
from kompress_operator.local import state
from kompress_operator.local.backend import LocalBackend, interruptible, take_up
from kompress_operator.local.defaults import ignored, mlflow_command
from kompress_operator.local.state import LocalJob


def run(path: pathlib.Path, *, as_json: bool) -> NoReturn:
    """Runs the job to its end, then ends the command."""
    job = read_job(path)
    local, backend = _run_locally(job, only_preflight=False)
    if as_json:
        print(json.dumps(local.manifest(), indent=2))
    else:
        _show(local)
    _show_failure(local, backend)
    code = exit_of(local.status, interrupted=bool(backend.interrupts))
    if code is Exit.INTERRUPTED:
        say(f"stopped; `kompress run {path}` goes on from here")
    elif local.status.phase is Phase.SUSPENDED:
        say("spec.suspend is true: nothing runs until it is false")
    raise typer.Exit(code)


def plan(path: pathlib.Path, *, as_json: bool) -> NoReturn:
    """Runs the preflight and shows what it found, then ends the command. A `kompress run` goes on from there."""
    job = read_job(path)
    local, backend = _run_locally(job, only_preflight=True)
    if local.status.plan is None:
        _show_failure(local, backend)
        raise typer.Exit(exit_of(local.status, interrupted=bool(backend.interrupts)))
    document = read_plan(local.status.plan)
    if as_json:
        print(json.dumps({"metadata": local.manifest()["metadata"], "plan": local.status.plan.dump(), "document": document}, indent=2))
    else:
        console().print(plan_table(job.spec, local.status.plan, document))
        print(f"plan: {local.status.plan.uri}")
    raise typer.Exit(Exit.INTERRUPTED if backend.interrupts else Exit.DONE)


def _run_locally(job: CompressionJob, *, only_preflight: bool) -> tuple[LocalJob, LocalBackend]:
    """Takes up the job in its folder and drives it; a finished one is left as it is."""
    folder = state.home(os.environ) / job.metadata.name
    try:
        with state.locked(folder):
            local = take_up(job.metadata.name, job.spec, folder, time.time())
            backend = LocalBackend(local, folder, only_preflight=only_preflight)
            try:
                _drive(backend, job.spec, folder)
            finally:
                backend.close()
            return local, backend
    except KompressError as error:
        fail_with(error)
    except OSError as error:
        fail(f"{error.filename or folder}: {error.strerror}", hint=f"jobs are kept below {state.HOME_VARIABLE} (now {folder.parent})")


def _drive(backend: LocalBackend, spec: CompressionJobSpec, folder: pathlib.Path) -> None:
    if backend.status.phase.finished:
        say(f"{backend.job.name} has finished; this is its status ({folder})")
        return
    if backend.job.attempts:
        say(f"going on with {backend.job.name} in {folder}")
    for sentence in ignored(spec):
        say(f"note: {sentence}")
    with LiveProgress(backend.status) as progress, interruptible(backend, progress.say):
        backend.run(progress.update)


def _show(local: LocalJob) -> None:
    """The table of the end, and where everything is."""
    status = local.status
    out = console()
    if status.stages:
        out.print(stages_table(status))
    if status.goals:
        out.print(goals_table(status.goals))
    places = {"model": model_of(status), "report": report_of(status)}
    if local.merged is not None:
        places["metrics"] = mlflow_command(MergedSpec.model_validate(local.merged))
    for name, place in places.items():
        if place:
            print(f"{name}: {place}")


def _show_failure(local: LocalJob, backend: LocalBackend) -> None:
    """Why it failed, and where the failed attempt's log lies."""
    reason, message = reason_of(local.status)
    if not reason:
        return
    say(f"\nerror: {reason}: {message}")
    for attempt in _failed_attempts(local.status, local):
        if log := backend.launchers.log_file(attempt):
            say(f"log: {log}")


def _failed_attempts(status: CompressionJobStatus, local: LocalJob) -> list[str]:
    failed = {entry.name for entry in status.stages if entry.state is StageState.FAILED}
    newest = {attempt.stage: attempt.name for attempt in local.attempts if attempt.stage in failed}
    return list(newest.values())
