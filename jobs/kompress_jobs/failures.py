"""An exception as the record that the operator reads."""

import errno
import time
import traceback

from kompress_api.contract import StageFailure
from kompress_api.errors import ExitCode, Interrupted, KompressError

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
