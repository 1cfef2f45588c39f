"""How a stage's pods look: nodes, processes, image, resources, scheduling. Every stage may override any of it.

No field here has a default in the CRD: the platform team's ClusterCompressionRuntime may hold each of them, and a default
would win over it. Built-in defaults come last, in `merge.py`, and stand in the descriptions.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from kompress_api.base import Model, Rule
from kompress_api.names import MAX_NODES, MAX_RESTARTS, ShortText, Uri
from kompress_api.places import Output, Tracking

Quantity = Annotated[str, StringConstraints(max_length=64, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$")]
IntOrQuantity = Annotated[int, Field(ge=0)] | Quantity
ResourceList = Annotated[dict[str, IntOrQuantity], Field(max_length=32)]
PodTemplate = Annotated[dict[str, object], Field(max_length=8)]

FORBIDDEN_POD_FIELDS = ("restartPolicy", "subdomain", "hostname")
FORBIDDEN_CONTAINER_FIELDS = ("command", "args")
WORKER = "worker"
"""Name of the container that runs a stage."""


class Elastic(Model):
    """Bounds of an elastic gang: torchrun's `--nnodes=min:max`."""

    min_nodes: Annotated[int, Field(ge=1, le=MAX_NODES)]
    """Fewest nodes that the stage goes on with."""
    max_nodes: Annotated[int, Field(ge=1, le=MAX_NODES)]
    """Most nodes that `nodes` may be raised to."""

    rules = (
        Rule(
            cel="self.minNodes <= self.maxNodes",
            holds=lambda e: e.min_nodes <= e.max_nodes,
            message="minNodes must not be larger than maxNodes",
        ),
    )


class Resources(Model):
    """As in a container."""

    limits: ResourceList = {}
    """Upper bounds, such as {nvidia.com/gpu: 8, cpu: 32, memory: 256Gi}; also the requests where those are absent."""
    requests: ResourceList = {}
    """What the scheduler sets aside."""


class Toleration(Model):
    """As in a pod."""

    key: ShortText | None = None
    """Taint key; absent with operator Exists: every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """Equal (default) or Exists."""
    value: ShortText | None = None
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Absent: every effect."""
    toleration_seconds: int | None = None
    """How long a NoExecute taint is tolerated."""


class Runtime(Model):
    """The pods of a stage."""

    image: Uri | None = None
    """Image with kompress_jobs and the user's own code."""
    nodes: Annotated[int, Field(ge=1, le=MAX_NODES)] | None = None
    """Pods of a stage, one launcher each. Built-in default: 1."""
    elastic: Elastic | None = None
    """Absent: a fixed gang of `nodes`."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] | None = None
    """Worker processes a pod. Built-in default: auto = GPUs of the pod, 1 without."""
    resources: Resources | None = None
    """Resources of the container `worker`."""
    node_selector: Annotated[dict[str, ShortText], Field(max_length=32)] | None = None
    """As in a pod."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = None
    """As in a pod."""
    queue_name: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Kueue's LocalQueue; the Job carries it as kueue.x-k8s.io/queue-name."""
    pod_template: PodTemplate | None = None
    """Strategic merge onto the pod template ({metadata, spec}), for what has no field here: volumes, env, affinity, runtimeClassName,
    serviceAccountName, ... The container is called `worker`. Refused: command, args, restartPolicy, subdomain, hostname, KOMPRESS_*."""

    rules = (
        Rule(
            cel="!has(self.elastic) || !has(self.nodes) || (self.nodes >= self.elastic.minNodes && self.nodes <= self.elastic.maxNodes)",
            holds=lambda r: not (r.elastic and r.nodes) or r.elastic.min_nodes <= r.nodes <= r.elastic.max_nodes,
            message="nodes must lie between elastic.minNodes and elastic.maxNodes",
            field="nodes",
        ),
    )


class RestartPolicy(Model):
    """When a failed stage is tried again. Preempted, evicted and lost pods restart for free."""

    max_restarts: Annotated[int, Field(ge=0, le=MAX_RESTARTS)] | None = None
    """Restarts that may be spent within the window. Built-in default: 3."""
    window_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Seconds after which a restart is forgotten. Built-in default: 3600."""
    backoff_seconds: Annotated[int, Field(ge=0, le=86_400)] | None = None
    """Seconds before the first restart, doubled by each further one within the window up to 16 times. Built-in default: 10."""


class SharedSpec(Model):
    """What both a CompressionJob and a ClusterCompressionRuntime may say; the job's own fields win."""

    output: Output | None = None
    """Where artifacts and checkpoints are kept. Locally: a folder."""
    tracking: Tracking | None = None
    """The MLflow server. Locally: sqlite."""
    runtime: Runtime | None = None
    """How the pods of every stage look."""
    restart_policy: RestartPolicy | None = None
    """When a failed stage is tried again."""
    max_parallel_stages: Annotated[int, Field(ge=1, le=32)] | None = None
    """Stages that may run at once. Built-in default: 1."""
    startup_deadline_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    """Seconds within which all pods of an attempt must run, else it is ended and counted as a restart. Built-in default: 600."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Seconds of running (not suspended, report aside) after which the job fails. Built-in default: none."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """Seconds after the end when Jobs, pods and the Service are deleted; the CompressionJob stays. Built-in default: 604800."""


class ClusterCompressionRuntimeSpec(SharedSpec):
    """The platform team's defaults for every CompressionJob that names this runtime."""


class RuntimeRef(Model):
    """Which ClusterCompressionRuntime holds the defaults."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    """Name of a ClusterCompressionRuntime."""
