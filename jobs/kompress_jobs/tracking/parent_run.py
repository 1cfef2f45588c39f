"""The preflight's tracking: MLflow is looked for while the plan is being checked, and the job's run is opened last.

So a plan that can't work leaves no run behind, and a server that can't be reached is told of within the preflight's patience.
"""

from kompress_api.contract import StageSuccess
from kompress_jobs.storage.objects import PREFLIGHT_PATIENCE
from kompress_jobs.tracking.job_run import JobRun
from kompress_jobs.tracking.mlflow import Mlflow


class ParentRun(JobRun):
    """Opens the job's run."""

    patience = PREFLIGHT_PATIENCE

    def tell(self, server: Mlflow, message: StageSuccess) -> str:
        stage = self._stage
        return server.open_parent({"kompress.plan": message.plan, "kompress.output": stage.output.uri, "kompress.task": stage.task})
