"""What operator and pod say to each other: one JSON in, one termination message out.

In: the environment variable KOMPRESS_STAGE holds a `StageInput` of at most 64 KiB (one environment string of 128 KiB
fails the start of a process). Out: the container's termination message holds a `Termination` of at most 3,500 bytes (the
kubelet reads 4 KiB). The pod's index comes as KOMPRESS_POD_INDEX, the number of pods as KOMPRESS_NODES (or `min:max`),
processes a pod as KOMPRESS_PROCESSES, rank 0's address as KOMPRESS_MASTER (host:port).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from kompress_api.base import Model
from kompress_api.goals import Goal, GoalResult
from kompress_api.job import Evaluation
from kompress_api.names import StageName, Uri
from kompress_api.places import Dataset, ModelSource, Output, Task, Tracking
from kompress_api.stages.stage import Stage, StageKind
from kompress_api.status import Figures

ENV_STAGE = "KOMPRESS_STAGE"
ENV_INDEX = "KOMPRESS_POD_INDEX"
ENV_NODES = "KOMPRESS_NODES"
ENV_PROCESSES = "KOMPRESS_PROCESSES"
ENV_MASTER = "KOMPRESS_MASTER"
ENV_TERMINATION_LOG = "KOMPRESS_TERMINATION_LOG"
ENV_SCRATCH = "KOMPRESS_SCRATCH"
"""Folder for caches, the metric spool and files on their way to the store; default: the temporary directory."""
ENV_CACHE = "KOMPRESS_CACHE"
"""Folder of the node for copies of data sets, where it is not CACHE_FOLDER."""
CACHE_FOLDER = "/var/cache/kompress"
"""What is mounted here in a pod (a hostPath, a PersistentVolumeClaim) outlives it; nothing: each pod makes its own copies."""
ENV_CREDENTIALS = "KOMPRESS_CREDENTIALS"
"""Folder of the mounted Secrets; default /var/run/kompress/credentials. Set to the empty string: the SDK's own chain."""
ENV_FACTORIES = "KOMPRESS_FACTORIES"
ENV_TRACKING = "MLFLOW_TRACKING_URI"
"""MLflow's own: set from the stage's input, so that mlflow:// models are looked for where the job's runs are."""
CREDENTIALS_FOLDER = "/var/run/kompress/credentials"
MASTER_PORT = 29500
MAX_INPUT_BYTES = 64 * 1024
MAX_TERMINATION_BYTES = 3500

Role = Literal["model", "dataset", "output", "tracking"]
"""Folder names below CREDENTIALS_FOLDER (datasets of spec.evaluation: dataset0, dataset1, ...)."""

StageKindOrOwn = Literal["preflight", StageKind, "report"]


class JobIdentity(Model):
    """Whose stage it is."""

    name: str
    """metadata.name."""
    namespace: str = ""
    """metadata.namespace; empty on a laptop."""
    uid: str
    """metadata.uid; names the job's own folders in the output and its MLflow run."""


class Artifact(Model):
    """An input: a stage's artifact, or (for role `model` of `source`) nothing but the key's name."""

    role: str
    """See `dag.Input`."""
    stage: str
    """Stage that made it, or `source` (then spec.model is what is meant and the rest is empty)."""
    uri: Uri | None = None
    """Folder of the artifact."""
    digest: str = ""
    """SHA-256 of its manifest."""
    key: str = ""
    """Its stage key, in full."""


class StageOutcome(Model):
    """What `report` is told of each stage."""

    name: StageName
    """Stage."""
    state: str
    """StageState."""
    artifact: Uri | None = None
    """Folder of the artifact."""
    mlflow_run_id: str = ""
    """Run of its last attempt."""
    reused: bool = False
    """Not made by this job's run."""
    attempts: int = 0
    """How often it was started."""
    message: str = ""
    """Root cause, where it failed."""


class StageInput(Model):
    """All that a stage's pods are told."""

    job: JobIdentity
    """Whose stage it is."""
    kind: StageKindOrOwn
    """Module of kompress_jobs.stages, in camelCase."""
    name: str
    """Stage name."""
    attempt: int
    """Counts from 1."""
    task: Task
    """spec.task."""
    seed: int
    """spec.seed."""
    evaluation: Evaluation
    """spec.evaluation."""
    model: ModelSource
    """spec.model."""
    dataset: Dataset
    """spec.dataset."""
    output: Output
    """Where artifacts and checkpoints go."""
    tracking: Tracking
    """The MLflow server; `experiment` is filled in."""
    stage: Stage | None = None
    """The stage with every default filled in, without `runtime`; absent for preflight and report."""
    inputs: Annotated[list[Artifact], Field(max_length=64)] = []
    """Its inputs."""
    goals: Annotated[list[Goal], Field(max_length=16)] = []
    """spec.goals: figures that the termination message must carry."""
    baseline: str = "source"
    """Resolved spec.baseline."""
    reuse: bool = False
    """The preflight saw a commit under this stage's key: verify it and end; if it is gone end 0 with hit false."""
    plan: Uri | None = None
    """plan.json of the preflight."""
    plan_digest: str = ""
    """Its SHA-256."""
    parent_run_id: str = ""
    """MLflow parent run."""
    spec: dict[str, Any] | None = None
    """preflight and report: the merged spec without podTemplates."""
    stages: Annotated[list[StageOutcome], Field(max_length=34)] = []
    """report: what became of each stage."""
    failure: str = ""
    """report: why the job failed, empty when it did not."""


class StageSuccess(Model):
    """Termination message of rank 0's pod when a stage is done."""

    outcome: Literal["Succeeded"] = "Succeeded"
    """Tells it from a failure."""
    artifact: str = ""
    """URI of the artifact's folder."""
    digest: str = ""
    """SHA-256 of its manifest."""
    key: str = ""
    """Stage key, in full."""
    mlflow_run_id: str = ""
    """Nested run of this attempt."""
    reused: bool = False
    """The artifact was there already."""
    hit: bool = True
    """False: `reuse` was asked for, and the commit is gone, damaged or under another key."""
    metrics: Figures = {}
    """Figures by name."""
    # preflight
    plan: str = ""
    """URI of plan.json."""
    plan_digest: str = ""
    """Its SHA-256."""
    parent_run_id: str = ""
    """MLflow parent run."""
    parent_run_url: str = ""
    """Its page."""
    keys: dict[str, str] = {}
    """First 16 hex digits of each stage's key."""
    hits: dict[str, bool] = {}
    """Which stages are committed already."""
    # report
    report: str = ""
    """URI of report.html."""
    goals: list[GoalResult] = []
    """What became of each goal."""


class StageFailure(Model):
    """Termination message of any pod that failed."""

    outcome: Literal["Failed"] = "Failed"
    """Tells it from a success."""
    reason: str
    """Name of the error (`errors.py`), or of the exception."""
    message: Annotated[str, StringConstraints(max_length=1024)]
    """What is wrong."""
    hint: Annotated[str, StringConstraints(max_length=512)] = ""
    """What to do."""
    field: str = ""
    """Path in the manifest."""
    rank: int | None = None
    """Global rank of the first process that failed."""
    time_us: int | None = None
    """When it failed, microseconds since the epoch; the earliest of all pods is the root cause."""
    exit_code: int
    """Exit code of the pod."""
    secondary: bool = False
    """An aborted collective or a stopped process: never wins over a primary error."""
    trace: Annotated[str, StringConstraints(max_length=1200)] = ""
    """Last frames."""
    checkpoint_step: int | None = None
    """Newest committed checkpoint."""


Termination = Annotated[StageSuccess | StageFailure, Field(discriminator="outcome")]
