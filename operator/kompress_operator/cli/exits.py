"""Exit codes of the command line, and how a command ends with one of them."""

import enum
import sys
from typing import NoReturn

import typer

from kompress_api.errors import KompressError
from kompress_api.status import CompressionJobStatus, Phase

GOAL_REASONS = frozenset({"GoalMissed", "NoSpeedup"})


class Exit(enum.IntEnum):
    """What became of it."""

    DONE = 0
    FAILED = 1
    INVALID = 2
    GOAL_MISSED = 3
    INTERRUPTED = 130


def say(text: str) -> None:
    """To a person: standard error. Standard output is data."""
    print(text, file=sys.stderr)


def fail(message: str, *, hint: str = "", code: Exit = Exit.FAILED) -> NoReturn:
    """Ends the command."""
    say(f"error: {message}")
    if hint:
        say(f"\nhint: {hint}")
    raise typer.Exit(code)


def fail_with(error: KompressError, *, code: Exit = Exit.FAILED) -> NoReturn:
    """Ends the command with an error's own words."""
    fail(str(error), hint=error.hint, code=code)


def exit_of(status: CompressionJobStatus, *, interrupted: bool = False) -> Exit:
    """The exit code of a job's status."""
    if status.phase is Phase.COMPLETE:
        return Exit.DONE
    if status.phase is Phase.FAILED:
        return Exit.GOAL_MISSED if reason_of(status)[0] in GOAL_REASONS else Exit.FAILED
    return Exit.INTERRUPTED if interrupted else Exit.DONE


def reason_of(status: CompressionJobStatus) -> tuple[str, str]:
    """Reason and message of a job's failure; empty where there is none."""
    failed = next((entry for entry in status.conditions if entry.type == "Failed" and entry.status == "True"), None)
    return (failed.reason, failed.message) if failed is not None else ("", "")
