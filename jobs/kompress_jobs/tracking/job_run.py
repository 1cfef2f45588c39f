"""What the preflight's and the report's tracking share: MLflow is connected to in the background, the job's run is told of at the end."""

import abc
import logging
import threading

from kompress_api.contract import StageFailure, StageInput, StageSuccess
from kompress_api.errors import KompressError
from kompress_jobs.failures import describe
from kompress_jobs.tracking.mlflow import Mlflow

log = logging.getLogger(__name__)


class JobRun(abc.ABC):
    """Start with `start`, end with `finish`; a subclass says in `tell` what is done to the job's run."""

    all_kept = True
    patience: float
    """Seconds that MLflow may be out of reach."""

    def __init__(self, stage: StageInput, stopping: threading.Event) -> None:
        self._stage = stage
        self._stopping = stopping
        self._server: Mlflow | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._connect, name="tracking", daemon=True)

    @abc.abstractmethod
    def tell(self, server: Mlflow, message: StageSuccess) -> str:
        """Do what is to be done for a stage that succeeded; returns the run's id. May raise KompressError."""

    def start(self) -> None:
        """Connect in the background."""
        self._thread.start()

    def finish(self, message: StageSuccess | StageFailure | None) -> StageSuccess | StageFailure | None:
        """The stage's result with the run in it, or why there can be none; a failure goes through unchanged."""
        if not isinstance(message, StageSuccess):
            return message
        self._thread.join()
        if self._server is None:
            return describe(self._error or RuntimeError("MLflow could not be set up"), rank=0)
        try:
            run = self.tell(self._server, message)
            return message.model_copy(update={"parent_run_id": run, "parent_run_url": self._server.url(run)})
        except KompressError as error:
            return describe(error, rank=0)

    def _connect(self) -> None:
        try:
            server = Mlflow(self._stage.tracking, self._stage.job, patience=self.patience, stopping=self._stopping)
            log.info("tracking: experiment %s at %s", server.experiment, server.uri)
            self._server = server
        except Exception as error:
            self._error = error
