"""What a worker has to tell, as JSON lines in a file beside it; the launcher reads the file and tells MLflow.

A worker never waits for MLflow and never fails because of it: an event is one `write` to a local file. Sending, retrying
and naming the run are the launcher's (`tracking/tail.py`, `tracking/mlflow.py`).
"""

import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Event = dict[str, Any]
"""{"type": "metrics" | "params" | "progress" | "warning" | "artifact", "time": ms since the epoch, ...}."""

EVENTS_FILE = "events.jsonl"
SENT_FILE = "events.sent"
"""How many bytes of EVENTS_FILE MLflow has acknowledged; written by the launcher."""


class Events:
    """Appends events of this process to `<folder>/events.jsonl`; only rank 0 has something to say.

    Every method returns at once and raises nothing but an `OSError` of a full local disk.
    """

    def __init__(self, folder: Path, *, rank: int = 0) -> None:
        self._folder = folder
        self._file = (folder / EVENTS_FILE).open("a", encoding="utf-8", buffering=1) if rank == 0 else None

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Figures of one step. A figure that is not finite is told as a warning: MLflow can't chart it."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        if finite:
            self._write({"type": "metrics", "values": finite, "step": step})
        for name in sorted(set(values) - set(finite)):
            self.warning(f"{name} is {values[name]} at step {step}")

    def params(self, values: Mapping[str, object]) -> None:
        """Settings of the run. The first value of a name stays."""
        self._write({"type": "params", "values": {name: str(value) for name, value in values.items()}})

    def progress(self, done: int, total: int, text: str = "") -> None:
        """How far the stage is, in steps of whatever it counts."""
        self._write({"type": "progress", "done": done, "total": total, "text": text})

    def warning(self, text: str) -> None:
        """Something that a person should know and that does not stop the stage."""
        self._write({"type": "warning", "text": text})

    def artifact(self, path: Path, name: str = "") -> None:
        """A file for the run's artifacts, kept below `name` (a folder; empty: the root). It must stay as it is until the stage ends."""
        self._write({"type": "artifact", "path": str(path.absolute()), "name": name})

    def unsent(self) -> list[Event]:
        """Events that MLflow has not got yet, for a checkpoint: another pod takes them over with `replay`."""
        path = self._folder / EVENTS_FILE
        if self._file is None or not path.exists():
            return []
        sent_file = self._folder / SENT_FILE
        sent = int(sent_file.read_text() or 0) if sent_file.exists() else 0
        with path.open("rb") as file:
            file.seek(sent)
            lines = file.read().splitlines()
        return [event for line in lines if (event := json.loads(line))["type"] in ("metrics", "params", "warning")]

    def replay(self, events: Iterable[Event]) -> None:
        """Tell again, with its own time and step, what an earlier attempt could not get rid of."""
        for event in events:
            self._write(event)

    def _write(self, event: Event) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"time": time.time_ns() // 1_000_000} | event, separators=(",", ":")) + "\n")
