"""Names that must agree: the API group, labels, and the names of the objects that one CompressionJob owns.

A stage attempt's Job is `<job>-<stage>-<attempt>`; its pods get `-<index>` from Kubernetes. With a job name of at most 35
characters, a stage of at most 16, an attempt of at most 5 digits and an index below 9,999 every one of them is a DNS
label (63), and as a stage name holds no dash no two jobs make the same name.
"""

from typing import Annotated, Final

from pydantic import Field, StringConstraints

GROUP: Final = "kompress.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "CompressionJob"
PLURAL: Final = "compressionjobs"
RUNTIME_KIND: Final = "ClusterCompressionRuntime"
RUNTIME_PLURAL: Final = "clustercompressionruntimes"
DEFAULT_RUNTIME: Final = "default"
FIELD_MANAGER: Final = "kompress"

SOURCE: Final = "source"
"""What `from` calls the model of `spec.model`."""
PREFLIGHT: Final = "preflight"
REPORT: Final = "report"
RESERVED_STAGES: Final = (SOURCE, PREFLIGHT, REPORT)

LABEL_JOB: Final = f"{GROUP}/job"
LABEL_STAGE: Final = f"{GROUP}/stage"
LABEL_ATTEMPT: Final = f"{GROUP}/attempt"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"

MAX_JOB_NAME: Final = 35
MAX_STAGE_NAME: Final = 16
MAX_STAGES: Final = 32
MAX_NODES: Final = 9999
MAX_RESTARTS: Final = 100
MAX_GOALS: Final = 16

StageName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*$", max_length=MAX_STAGE_NAME, min_length=1)]
Glob = Annotated[str, StringConstraints(min_length=1, max_length=253)]
Uri = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
ShortText = Annotated[str, StringConstraints(max_length=253)]
Arguments = Annotated[dict[str, object], Field(max_length=64)]


def attempt_name(job: str, stage: str, attempt: int) -> str:
    """The name of a stage attempt's Job, and the prefix of its pods' host names."""
    return f"{job}-{stage}-{attempt}"


def service_name(job: str) -> str:
    """The headless Service that gives a job's pods their DNS names."""
    return job
