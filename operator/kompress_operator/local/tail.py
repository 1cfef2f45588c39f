"""Live progress: the JSON lines that a worker appends to its events file, read as they come.

The format is the worker's (`kompress_jobs/events.py`): one object a line, `type` being progress, metrics, params,
warning or artifact. What is not understood is passed over: progress is never worth a failure.
"""

import json
import pathlib
from typing import Any

Event = dict[str, Any]


class Tail:
    """Reads what was appended to a file since the last call."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Event]:
        """New whole lines; none while the file is not there."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [event for line in whole.splitlines() if (event := _parse(line)) is not None]


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None
