"""The launcher's tracking thread: what the worker tells (and the machine's figures) becomes MLflow's nested run of this attempt.

Nothing here fails a stage or holds it up: MLflow is imported in the background, an outage leaves the events in the spool,
and at the end the thread gets a fixed time to send the rest.
"""

import contextlib
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kompress_api.contract import StageFailure, StageInput, StageSuccess
from kompress_api.errors import ExitCode, InvalidManifest, KompressError
from kompress_jobs.events import Event, Events
from kompress_jobs.storage.store import Store, open_store
from kompress_jobs.tracking import stage_model, system
from kompress_jobs.tracking.mlflow import Metric, Mlflow
from kompress_jobs.tracking.spool import Batch, Spool, leave

log = logging.getLogger(__name__)
POLL_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 30.0
QUIET_START_SECONDS = 30.0
"""How long the workers may have the processors to themselves."""
FLUSH_SECONDS = {"FINISHED": 30.0, "FAILED": 15.0, "KILLED": 8.0}
"""How long the last metrics may take, by how the stage ended."""
Message = StageSuccess | StageFailure | None


class Tracker:
    """Start with `start`, end with `finish`; `run_id` is the nested run once there is one."""

    def __init__(self, stage: StageInput, scratch: Path, flush_seconds: Mapping[str, float] = FLUSH_SECONDS) -> None:
        self._stage = stage
        self._flush_seconds = flush_seconds
        self._spool = Spool(scratch)
        self._events = Events(scratch)
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._status = ""
        self._server: Mlflow | None = None
        self._store: Store | None = None
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._last_step = 0
        self.run_id = ""
        self.all_kept = True
        """Every event is in MLflow or in the output."""

    def start(self) -> None:
        """Begin in the background."""
        self._events.params(params_of(self._stage))
        self._thread.start()

    def finish(self, message: Message) -> Message:
        """Send the rest, end the run as the stage ended, and keep in the output what did not arrive. The result gets the run's id."""
        if isinstance(message, StageSuccess):
            status = "FINISHED"
            step = max(self._last_step, _last_step(self._spool.rest()))
            made = {"artifact": message.artifact, "digest": message.digest, "key": message.key}
            if message.artifact:
                self._events.model(message.metrics, step, {"stage": self._stage.name, "kind": self._stage.kind, **made})
            else:
                self._events.metrics(message.metrics, step)
            tags = made | {"reused": str(message.reused).lower()}
        else:
            status = "KILLED" if message is None or message.exit_code == ExitCode.INTERRUPTED else "FAILED"
            told = message or StageFailure(reason="", message="", exit_code=0)
            tags = {"reason": told.reason, "message": told.message, "rank": "" if told.rank is None else str(told.rank)}
        self._events.tags({"kompress.outcome": status} | {f"kompress.{name}": value for name, value in tags.items() if value})
        self._flush(status, self._flush_seconds[status])
        return message.model_copy(update={"mlflow_run_id": self.run_id}) if isinstance(message, StageSuccess) else message

    def _flush(self, status: str, seconds: float) -> None:
        self._status = status
        self._deadline = time.monotonic() + seconds
        self._stopping.set()
        self._thread.join(timeout=seconds + 1)
        if rest := self._spool.rest():
            log.warning("MLflow has not got the last %d events of this attempt; the report will send them", len(rest))
            try:
                leave(open_store(self._stage.output, "output"), self._stage.job.uid, self._stage.name, self._stage.attempt, rest)
            except KompressError as error:
                self.all_kept = False
                log.error("they could not be kept in the output either: %s", error)

    def _run(self) -> None:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # importing MLflow must not slow the worker's start
        self._wait_for_work()
        wait, machine = POLL_SECONDS, None
        while True:
            try:
                self._open()
                if machine is None:
                    machine = threading.Thread(target=system.monitor, args=(self._events, self._stopping), name="system", daemon=True)
                    machine.start()
                wait = POLL_SECONDS
                while batch := self._spool.next():
                    self._send(batch)
                if self._stopping.is_set() and self._spool.next() is None:
                    assert self._server is not None
                    self._server.end(self.run_id, self._status)
                    return
            except KompressError as error:
                wait = min(MAX_BACKOFF_SECONDS, wait * 2)
                log.warning("tracking waits %.0f s: %s", wait, error)
            except Exception:
                wait = MAX_BACKOFF_SECONDS
                log.exception("tracking failed; trying again in %.0f s", wait)
            if time.monotonic() > self._deadline:
                return
            if self._stopping.is_set():
                time.sleep(min(1.0, wait) * random.uniform(0.5, 1.0))
            else:
                self._stopping.wait(wait * random.uniform(0.5, 1.0))

    def _wait_for_work(self) -> None:
        """Importing MLflow takes seconds of a core, which the workers' own imports need: it waits for their first step or figure."""
        deadline = time.monotonic() + QUIET_START_SECONDS
        while time.monotonic() < deadline and not any(event["type"] in ("progress", "metrics") for event in self._spool.rest()):
            if self._stopping.wait(POLL_SECONDS):
                return

    def _open(self) -> None:
        """Connect and find or make the run, once."""
        if self.run_id:
            return
        stage = self._stage
        if self._server is None:
            self._server = Mlflow(stage.tracking, stage.job, patience=0)
        self._store = open_store(stage.output, "output")
        parent = stage.parent_run_id or self._server.open_parent()
        self._server.end_dangling(stage.name, before=stage.attempt)
        self.run_id = self._server.open_nested(parent, stage.name, stage.attempt, {"kompress.kind": stage.kind})

    def _send(self, batch: Batch) -> None:
        assert self._server is not None
        assert self._store is not None
        self._last_step = max(self._last_step, _last_step(batch.events))
        send(self._server, self._store, self.run_id, batch.events)
        self._spool.acknowledge(batch)


def send(server: Mlflow, store: Store, run: str, events: Sequence[Event]) -> None:
    """Tell MLflow a batch of events. What it refuses for good is dropped with a warning; an outage raises and loses nothing."""
    metrics = [
        Metric(name, value, event["time"], event["step"])
        for event in events
        if event["type"] == "metrics"
        for name, value in event["values"].items()
    ]
    _unless_refused(lambda: server.log(run, metrics), "metrics")
    for event in events:
        match event["type"]:
            case "params":
                _unless_refused(lambda values=event["values"]: server.log(run, params=values), "params")
            case "tags":
                _unless_refused(lambda values=event["values"]: server.log(run, tags=values), "tags")
            case "warning":
                _unless_refused(lambda e=event: server.log(run, tags={f"kompress.warning.{e['time']}": e["text"]}), "warning")
            case "dataset":
                arguments = [event[name] for name in ("name", "digest", "source", "context")]
                _unless_refused(lambda arguments=arguments: server.dataset(run, *arguments), "dataset")
            case "model":
                _unless_refused(lambda e=event: stage_model.log_model(server, store, run, e), "a model")
            case "artifact" if Path(event["path"]).exists():
                _unless_refused(lambda e=event: server.artifact(run, Path(e["path"]), e["name"]), "artifact")


def params_of(stage: StageInput) -> dict[str, str]:
    """A stage's settings with dotted names as in the manifest; the same name means the same in every kind of stage."""
    flat: dict[str, str] = {
        "kind": stage.kind,
        "task": stage.task,
        "seed": str(stage.seed),
        "dataset": stage.dataset.source,
        "model": stage.model.source,
    }

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else name, inner)
        else:
            flat[prefix] = str(value)

    if stage.stage is not None:
        walk("", stage.stage.spec.dump())
    return flat


def _last_step(events: Sequence[Event]) -> int:
    """The highest step of a worker's figures."""
    return max((event["step"] for event in events if event["type"] == "metrics"), default=0)


def _unless_refused(call: Any, what: str) -> None:
    try:
        call()
    except InvalidManifest as error:
        log.warning("MLflow refuses %s: %s", what, error)
