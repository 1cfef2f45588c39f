"""The last word of a pod: the termination message, and which of its processes' errors is the root cause.

A worker records its error in `<scratch>/failures/<rank>.json` with microseconds, as torchelastic's own error file has
whole seconds. The launcher reads them all, names the earliest primary one, and writes it where the kubelet looks. Which
pod's message counts for the gang is the operator's to decide, by the same rule.
"""

import contextlib
import errno
import json
import os
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kompress_api.contract import MAX_TERMINATION_BYTES, StageFailure, StageSuccess
from kompress_api.errors import ExitCode, Interrupted, KompressError

FAILURES = "failures"
RESULT = "result.json"
MAX_TRACE = 1200
MAX_MESSAGE = 1024
MAX_HINT = 512
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
ABORTED_COLLECTIVE = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket Timeout")
"""What the texts of a collective's errors hold when another rank went away."""


def describe(error: BaseException, *, rank: int | None = None, checkpoint_step: int | None = None) -> StageFailure:
    """An exception as a failure record, stamped now. A `KompressError` keeps its words; any other is a retryable one."""
    reason, message, hint, field, code = type(error).__name__, str(error) or repr(error), "", "", ExitCode.SOFTWARE
    if isinstance(error, KompressError):
        reason, message, hint, field, code = error.reason, error.message, error.hint, error.field, error.exit_code
    elif isinstance(error, OSError) and error.errno in DISK_ERRORS:
        reason, code, hint = "StorageFailure", ExitCode.IO_ERROR, "free space on the pod's volumes, or give scratch a larger one"
    return StageFailure(
        reason=cut(reason, 63),
        message=cut(message, MAX_MESSAGE),
        hint=cut(hint, MAX_HINT),
        field=field,
        rank=rank,
        time_us=time.time_ns() // 1000,
        exit_code=int(code),
        secondary=isinstance(error, Interrupted) or aborted_collective(error),
        trace=cut("" if isinstance(error, KompressError) else _frames(error), MAX_TRACE, keep_end=True),
        checkpoint_step=checkpoint_step,
    )


def aborted_collective(error: BaseException) -> bool:
    """Whether the error only says that another rank went away."""
    seen: BaseException | None = error
    while seen is not None:
        if any(kind.__name__ in ("DistError", "DistBackendError", "DistNetworkError", "DistStoreError") for kind in type(seen).__mro__):
            return True
        if isinstance(seen, RuntimeError | ConnectionError) and not isinstance(seen, KompressError):
            text = str(seen)
            if any(mark in text for mark in ABORTED_COLLECTIVE):
                return True
        seen = seen.__cause__ or seen.__context__
    return False


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


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file in one step; a mounted file (the kubelet's) can't be replaced and is written in one call instead."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        with path.open("wb", buffering=0) as file:
            file.write(data)


def cut(text: str, size: int, *, keep_end: bool = False) -> str:
    """At most `size` UTF-8 bytes of a text, with `…` where something is missing."""
    raw = text.encode()
    if len(raw) <= size:
        return text
    room = max(0, size - 3)
    if not room:
        return ""
    part = raw[-room:] if keep_end else raw[:room]
    kept = part.decode(errors="ignore")
    return f"…{kept}" if keep_end else f"{kept}…"


def _frames(error: BaseException) -> str:
    """The last frames and the exception, without the frames' source carets."""
    lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-6)
    return "".join(lines).strip()


def _json(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
