"""What a worker has to tell, as JSON lines in a file beside it; the launcher reads the file and tells MLflow.

A worker never waits for MLflow and never fails because of it: an event is one `write` to a local file. Sending, retrying
and naming the run are the launcher's (`tracking/spool.py`, `tracking/tracker.py`).
"""

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Event = dict[str, Any]
"""{"type": "metrics" | "params" | "progress" | "warning" | "artifact" | "dataset" | "tags" | "model", "time": ms since the epoch, ...}."""

EVENTS_FILE = "events.jsonl"
SENT_FILE = "events.sent"
"""How many bytes of EVENTS_FILE MLflow has acknowledged; written by the launcher."""
SYSTEM_PREFIX = "system/"
"""Figures of the machine, which MLflow shows on a page of their own."""


class Events:
    """Appends events of this process to `<folder>/events.jsonl`; only rank 0 has something to say.

    Every method returns at once and raises nothing but an `OSError` of a full local disk.
    """

    def __init__(self, folder: Path, *, rank: int = 0) -> None:
        self._folder = folder
        self._file = (folder / EVENTS_FILE).open("ab", buffering=0) if rank == 0 else None

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Figures of one step. A figure that is not finite is told as a warning: MLflow can't chart it."""
        self._metrics(values, step, _now())

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

    def dataset(self, name: str, digest: str, source: str, context: str = "training") -> None:
        """The data that the run is about; `digest` is its fingerprint."""
        self._write({"type": "dataset", "name": name, "digest": digest, "source": source, "context": context})

    def model(self, values: Mapping[str, float], step: int, about: Mapping[str, str]) -> None:
        """Figures of the stage's end, which are the run's and its model's; `about` the model: stage, kind, artifact, digest, key."""
        now = _now()  # one point each, not two
        self._metrics(values, step, now)
        self._write({"type": "model", "time": now, "values": _finite(values), "step": step, **about})

    def tags(self, values: Mapping[str, str]) -> None:
        """Labels of the run."""
        self._write({"type": "tags", "values": dict(values)})

    def unsent(self) -> list[Event]:
        """What MLflow has not got yet, for a checkpoint: another pod takes it over with `replay`. Figures of the machine stay behind."""
        if self._file is None:
            return []
        events = (event for event, _ in read(self._folder, sent(self._folder)))
        return [event for event in events if event["type"] in ("metrics", "params", "warning") and not _of_the_machine(event)]

    def replay(self, events: Iterable[Event]) -> None:
        """Tell again, with its own time and step, what an earlier attempt could not get rid of."""
        for event in events:
            self._write(event)

    def _metrics(self, values: Mapping[str, float], step: int, now: int) -> None:
        finite = _finite(values)
        if finite:
            self._write({"type": "metrics", "time": now, "values": finite, "step": step})
        for name in sorted(set(values) - set(finite)):
            self.warning(f"{name} is {values[name]} at step {step}")

    def _write(self, event: Event) -> None:
        if self._file is not None:
            line = json.dumps({"time": _now()} | event, separators=(",", ":"))
            self._file.write(line.encode() + b"\n")  # one call, so that worker and launcher can both append


class Aside(Events):
    """What a training tells that is not the stage's own: progress, warnings, and figures under a name of their own."""

    def __init__(self, events: Events, name: str) -> None:
        self._folder, self._file, self._name = events._folder, events._file, name

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        super().metrics({f"{self._name}/{name}": value for name, value in values.items()}, step)

    def params(self, values: Mapping[str, object]) -> None:
        """The stage has told its own."""

    def progress(self, done: int, total: int, text: str = "") -> None:
        super().progress(done, total, f"{self._name}: {text}" if text else self._name)


def read(folder: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Every complete event from a byte offset on, each with the offset behind it."""
    path = folder / EVENTS_FILE
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield json.loads(line), offset


def sent(folder: Path) -> int:
    """How many bytes MLflow has acknowledged."""
    path = folder / SENT_FILE
    return int(path.read_text()) if path.exists() else 0


def _now() -> int:
    return time.time_ns() // 1_000_000


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def _of_the_machine(event: Event) -> bool:
    return event["type"] == "metrics" and all(name.startswith(SYSTEM_PREFIX) for name in event["values"])
