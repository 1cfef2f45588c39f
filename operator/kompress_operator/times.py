"""Times: seconds since the epoch inside, RFC 3339 to the second in `status`."""

import datetime
import math


def rfc3339(seconds: float) -> str:
    """`2026-01-31T12:00:00Z`, rounded down."""
    return datetime.datetime.fromtimestamp(math.floor(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch(text: str) -> float:
    """The inverse; any RFC 3339 time with an offset."""
    return datetime.datetime.fromisoformat(text).timestamp()
