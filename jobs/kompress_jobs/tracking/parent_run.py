"""The preflight's tracking: MLflow is looked for while the plan is being checked, and the job's run is opened last.

So a plan that can't work leaves no run behind, and a server that can't be reached is told of within the preflight's patience.
"""

import logging
import threading

from kompress_api.contract import StageFailure, StageInput, StageSuccess
from kompress_api.errors import KompressError
from kompress_jobs.storage.store import PREFLIGHT_PATIENCE
from kompress_jobs.termination import describe
from kompress_jobs.tracking.mlflow import Mlflow

log = logging.getLogger(__name__)


class ParentRun:
    """Start with `start`, open the run with `finish`."""

    all_kept = True

    def __init__(self, stage: StageInput, stopping: threading.Event) -> None:
        self._stage = stage
        self._stopping = stopping
        self._server: Mlflow | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._connect, name="tracking", daemon=True)

    def start(self) -> None:
        """Connect in the background."""
        self._thread.start()

    def finish(self, message: StageSuccess | StageFailure | None) -> StageSuccess | StageFailure | None:
        """The preflight's result with the run in it, or why there can be none."""
        if not isinstance(message, StageSuccess):
            return message
        self._thread.join()
        if self._server is None:
            return describe(self._error or RuntimeError("MLflow could not be set up"), rank=0)
        stage = self._stage
        tags = {"kompress.plan": message.plan, "kompress.output": stage.output.uri, "kompress.task": stage.task}
        try:
            run = self._server.open_parent(tags)
            return message.model_copy(update={"parent_run_id": run, "parent_run_url": self._server.url(run)})
        except KompressError as error:
            return describe(error, rank=0)

    def _connect(self) -> None:
        try:
            server = Mlflow(self._stage.tracking, self._stage.job, patience=PREFLIGHT_PATIENCE, stopping=self._stopping)
            log.info("tracking: experiment %s at %s", server.experiment, server.uri)
            self._server = server
        except Exception as error:
            self._error = error
