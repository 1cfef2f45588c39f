"""The last word of a pod: the termination message, and which of its processes' errors is the root cause.

A worker records its error in `<scratch>/failures/<rank>.json` with microseconds, as torchelastic's own error file has
whole seconds. The launcher reads them all, names the earliest primary one, and writes it where the kubelet looks. Which
pod's message counts for the gang is the operator's to decide, by the same rule.
"""

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kompress_api.contract import MAX_TERMINATION_BYTES, StageFailure, StageSuccess
from kompress_api.errors import ExitCode
from kompress_jobs.failures import cut
from kompress_jobs.storage.local import write_atomically

FAILURES = "failures"
RESULT = "result.json"


def record(failure: StageFailure, scratch: Path) -> None:
    """Leave the failure for the launcher; never raises, as the process is ending anyway."""
    with contextlib.suppress(OSError):
        folder = scratch / FAILURES
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{failure.rank}.json", failure.model_dump_json(by_alias=True, exclude_none=True).encode())


def recorded(scratch: Path) -> list[StageFailure]:
    """Every failure that the processes of this pod have left."""
    found = []
    for path in sorted((scratch / FAILURES).glob("*.json")):
        with contextlib.suppress(ValidationError, OSError):
            found.append(StageFailure.model_validate_json(path.read_bytes()))
    return found


def root_cause(failures: Iterable[StageFailure]) -> StageFailure | None:
    """The earliest primary failure; among secondary ones alone the earliest, an interruption before an aborted collective."""
    return min(
        failures,
        key=lambda f: (f.secondary, f.secondary and f.exit_code != ExitCode.INTERRUPTED, f.time_us or 0),
        default=None,
    )


def encode(message: StageSuccess | StageFailure, *, keep: Sequence[str] = (), limit: int = MAX_TERMINATION_BYTES) -> bytes:
    """JSON of at most `limit` bytes. What does not fit goes in this order: trace, message and hint, figures not in `keep`."""
    data = message.model_dump(mode="json", by_alias=True, exclude_none=True)
    data = {name: value for name, value in data.items() if value not in ("", {}, [])}
    for name, least in (("trace", 0), ("message", 200), ("hint", 80), ("message", 0), ("hint", 0)):
        _shorten(data, name, least, limit)
    figures = data.get("metrics", {})
    for name in sorted(figures, key=lambda name: (name in keep, "@" not in name, "." not in name)):
        if len(_json(data)) <= limit:
            break
        del figures[name]
    for name in ("goals", "keys", "hits"):
        if len(_json(data)) > limit:
            data.pop(name, None)
    return _json(data)


def _shorten(data: dict[str, Any], name: str, least: int, limit: int) -> None:
    """Cut the text `data[name]`, a trace from its front, until all fits or `least` bytes are left of it."""
    while (over := len(_json(data)) - limit) > 0 and len(text := str(data.get(name, "")).encode()) > least:
        data[name] = cut(data[name], max(least, len(text) - over), keep_end=name == "trace")


def write(message: StageSuccess | StageFailure, path: Path, *, keep: Sequence[str] = ()) -> None:
    """Put the message where the kubelet, or the local backend, reads it."""
    write_atomically(path, encode(message, keep=keep))


def _json(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
