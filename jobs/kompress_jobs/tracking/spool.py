"""What is still to be sent to MLflow: the events file of a pod, and how much of it has arrived.

The file is on the pod's disk, so an outage of MLflow costs nothing but its lines. What is left when a pod has to go
lies in the output, from where `report` sends it (`leave`, `left`).
"""

import dataclasses
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from kompress_jobs.events import SENT_FILE, Event, read, sent
from kompress_jobs.storage.local import write_atomically

if TYPE_CHECKING:
    from kompress_jobs.storage.store import Store

BATCH = 500
"""Events that are sent at a time."""
PREFIX = "jobs/{uid}/unsent/"


@dataclasses.dataclass(frozen=True)
class Batch:
    """Events in their order, and where the file goes on behind them."""

    events: list[Event]
    end: int


class Spool:
    """The events of one pod."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def next(self) -> Batch | None:
        """The oldest events that have not arrived, None when all have."""
        pairs = list(islice(read(self._folder, sent(self._folder)), BATCH))
        return Batch([event for event, _ in pairs], pairs[-1][1]) if pairs else None

    def acknowledge(self, batch: Batch) -> None:
        """MLflow has them."""
        write_atomically(self._folder / SENT_FILE, str(batch.end).encode())

    def rest(self) -> list[Event]:
        """All that has not arrived."""
        return [event for event, _ in read(self._folder, sent(self._folder))]


def leave(store: "Store", uid: str, stage: str, attempt: int, events: list[Event]) -> None:
    """Keep events in the output, for `report`."""
    text = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events if event["type"] != "artifact")
    store.write(f"{PREFIX.format(uid=uid)}{stage}-{attempt}.jsonl", text.encode())


def left(store: "Store", uid: str) -> Iterator[tuple[str, str, int, list[Event]]]:
    """What pods have left: key, stage, attempt and events of each."""
    for found in store.list(PREFIX.format(uid=uid)):
        if match := re.search(r"([a-z][a-z0-9]*)-(\d+)\.jsonl$", found.key):
            yield found.key, match[1], int(match[2]), [json.loads(line) for line in store.read(found.key).splitlines()]
