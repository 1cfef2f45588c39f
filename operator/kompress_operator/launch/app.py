"""A stage attempt as a torchx app: the same for a cluster (`kubernetes_job`) and for a laptop (`local_cwd`).

Pure. One role `worker`, whose replicas are the nodes of the gang; each starts the launcher `python -m kompress_jobs`. What
torchx has no word for (exact quantities, Secrets, the pod template) lies in the role's metadata as `PodOptions`.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

from torchx.specs import AppDef, Resource, Role, macros  # type: ignore[import-untyped]

from kompress_api import contract
from kompress_api.contract import MASTER_PORT, StageInput
from kompress_api.merge import MergedSpec, ResolvedRuntime
from kompress_api.names import LABEL_ATTEMPT, LABEL_JOB, LABEL_STAGE, PREFLIGHT, REPORT, attempt_name, service_name
from kompress_api.places import Access, ModelSource, Tracking
from kompress_api.runtime import WORKER
from kompress_operator.launch import inputs

SCHEDULER: Final = "kubernetes_job"
"""The torchx scheduler that reads `PodOptions` from a role's metadata under this name."""


@dataclasses.dataclass(frozen=True)
class PodOptions:
    """How a role's pods look beyond what torchx's Role says."""

    resources: Mapping[str, Mapping[str, Any]] | None = None
    """limits and requests as in a container; None: from the role's torchx Resource."""
    small: bool = False
    """The work needs no GPU and little of anything else: extended resources are left out, requests are lowered."""
    node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    queue: str = ""
    """Kueue's LocalQueue."""
    credentials: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Folder below /var/run/kompress/credentials -> Secret."""
    pod_template: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Strategic merge onto the pod template."""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of the Job and its pods."""
    job_labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of the Job alone."""


def master_of(job: str, stage: str, attempt: int) -> str:
    """Address of rank 0's pod in the cluster: host:port."""
    return f"{attempt_name(job, stage, attempt)}-0.{service_name(job)}:{MASTER_PORT}"


def is_small(stage_input: StageInput) -> bool:
    """Whether the attempt is one small pod. A reused export may measure anew on its targets, and a reused stage of which more data sets
    are asked on those: they get what the stage asks for."""
    if stage_input.kind in (PREFLIGHT, REPORT):
        return True
    return stage_input.reuse and stage_input.kind != "export" and not stage_input.evaluation.datasets


def nodes_of(stage_input: StageInput, runtime: ResolvedRuntime) -> int:
    """Pods of the attempt."""
    return 1 if stage_input.reuse or is_small(stage_input) else runtime.nodes


def build_app(
    merged: MergedSpec,
    stage_input: StageInput,
    *,
    nodes: int | None = None,
    master: str | None = None,
    environment: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> AppDef:
    """The app of one stage attempt.

    `nodes` is the live size of an elastic gang (default: the runtime's); `master` rank 0's host:port (default: its pod's DNS name);
    `environment` is added to each replica's (torchx macros are substituted); `labels` are the CompressionJob's own, of which Kueue's are
    handed on.

    Raises:
        SpecTooLarge: the stage's input is over its limit.
    """
    job, stage, attempt = stage_input.job, stage_input.name, stage_input.attempt
    runtime = merged.runtime_of(next((entry for entry in merged.stages if entry.name == stage), None))
    small = is_small(stage_input)
    gang = nodes_of(stage_input, runtime) if nodes is None else nodes
    elastic = None if small or stage_input.reuse else runtime.elastic
    variables = {
        **inputs.variable(stage_input),
        contract.ENV_NODES: f"{elastic.min_nodes}:{elastic.max_nodes}" if elastic else str(gang),
        contract.ENV_PROCESSES: "1" if small else str(runtime.processes_per_node),
        contract.ENV_MASTER: master or master_of(job.name, stage, attempt),
    }
    worker = Role(
        name=WORKER,
        image=runtime.image,
        entrypoint="python",
        args=["-m", "kompress_jobs"],
        env={
            **{name: literal(value) for name, value in variables.items()},
            contract.ENV_INDEX: macros.replica_id,
            **(environment or {}),
        },
        num_replicas=gang,
        min_replicas=elastic.min_nodes if elastic else None,
        resource=Resource(cpu=0, gpu=0 if small else _gpus(runtime), memMB=0),
        port_map={"c10d": MASTER_PORT},
        metadata={
            SCHEDULER: PodOptions(
                resources=runtime.resources.dump(),
                small=small,
                node_selector=runtime.node_selector,
                tolerations=tuple(entry.dump() for entry in runtime.tolerations),
                queue=runtime.queue_name,
                credentials=dict(_credentials(merged, stage_input)),
                pod_template=runtime.pod_template,
                labels={LABEL_JOB: job.name, LABEL_STAGE: stage, LABEL_ATTEMPT: str(attempt)},
                job_labels={name: value for name, value in (labels or {}).items() if name.startswith("kueue.x-k8s.io/")},
            )
        },
    )
    return AppDef(name=attempt_name(job.name, stage, attempt), roles=[worker])


def literal(text: str) -> str:
    """`text` in a torchx role: a `$` of its own is no macro."""
    return text.replace("$", "$$")


def _gpus(runtime: ResolvedRuntime) -> int:
    return sum(int(amount) for name, amount in runtime.resources.limits.items() if name.endswith("/gpu"))


def _credentials(merged: MergedSpec, stage_input: StageInput) -> Iterator[tuple[str, str]]:
    """Folder -> Secret for every place that names one: output, tracking, dataset, dataset0..., model, student, and their weights."""
    places: list[tuple[str, Access | Tracking]] = [("output", merged.output), ("tracking", merged.tracking), ("dataset", merged.dataset)]
    places += [(f"dataset{index}", dataset) for index, dataset in enumerate(merged.evaluation.datasets)]
    models: list[tuple[str, ModelSource]] = [("model", merged.model)]
    stages = merged.stages if stage_input.kind == PREFLIGHT else [stage_input.stage] if stage_input.stage else []
    models += [("student", stage.distill.student) for stage in stages if stage.distill and stage.distill.student]
    for role, model in models:
        places.append((role, model))
        places += [(f"{role}-weights{index}", weights) for index, weights in enumerate(model.weights)]
    for role, place in places:
        if place.credentials_secret:
            yield role, place.credentials_secret
