"""The status within its limits: attempts cut to the first and the newest ten, messages by bytes, the whole to 384 KiB.

What is cut stays cut: the status is the operator's memory, so fitting what already fits changes nothing.
"""

from kompress_api.status import MAX_ATTEMPTS, MAX_MESSAGE, MAX_OLD_MESSAGE, CompressionJobStatus, StageStatus

MAX_STATUS_BYTES = 384 * 1024
STEPS = ((MAX_ATTEMPTS, MAX_OLD_MESSAGE), (MAX_ATTEMPTS, 64), (MAX_ATTEMPTS, 0), (6, 0), (3, 0))
"""Attempts of a stage, and bytes of an older attempt's message: the first pair with which the whole fits is taken. A job needs
many stages with many long failures to get to the second."""


def fit(status: CompressionJobStatus) -> CompressionJobStatus:
    """The status as it may be written."""
    for attempts, message in STEPS:
        status = status.model_copy(update={"stages": [cut(entry, attempts, message) for entry in status.stages]})
        if len(status.model_dump_json(by_alias=True, exclude_none=True).encode()) <= MAX_STATUS_BYTES:
            break
    return status


def cut(entry: StageStatus, attempts: int = MAX_ATTEMPTS, message: int = MAX_OLD_MESSAGE) -> StageStatus:
    """A stage with the first and the newest attempts, `attempts` in all; the newest message whole, the older ones short."""
    kept = entry.attempts
    surplus = len(kept) - attempts
    if surplus > 0:
        kept = [kept[0], *kept[1 + surplus :]]
    limits = [message] * (len(kept) - 1) + [MAX_MESSAGE]
    kept = [a.model_copy(update={"message": clip(a.message, limit)}) for a, limit in zip(kept, limits, strict=False)]
    return entry.model_copy(update={"attempts": kept, "attempts_cut": entry.attempts_cut + max(0, surplus)})


def clip(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8: whole characters, of control characters only the newline, an ellipsis where something was cut."""
    plain = "".join(character if character.isprintable() or character == "\n" else " " for character in text)
    raw = plain.encode(errors="replace")
    if len(raw) <= limit:
        return plain
    return raw[: limit - 3].decode(errors="ignore") + "…" if limit >= 3 else ""
