"""A torchx app as Kubernetes objects: a headless Service and an Indexed Job. Pure; nobody is called.

The Job starts each replica once (`restartPolicy: Never`): restarting a gang is for whoever watches it. Where nobody does, the Job
ends with its first failed pod (`backoffLimit: 0`); its controller then deletes the others together with whatever they had to say.
Where somebody does, a failed pod leaves the others alone (`backoffLimitPerIndex: 0`, KEP-3850), as the one with the root cause
often ends last.

Pod `i` of Job `j` is `j-i.<service>`, resolvable before it is ready. The pods keep to the Pod Security Standard `restricted`, write
only to /tmp, $HOME and /dev/shm, and hold no API token; `PodOptions.pod_template` overrides what a site needs otherwise.
"""

import dataclasses
import string
from collections.abc import Mapping
from typing import Final

from torchx.specs import AppDef, Role, macros  # type: ignore[import-untyped]

from kompress_api.contract import CREDENTIALS_FOLDER
from kompress_api.errors import SpecCannotWork
from kompress_api.names import LABEL_MANAGED_BY
from kompress_api.runtime import WORKER
from kompress_operator.launch.app import SCHEDULER, PodOptions
from kompress_operator.launch.merge import Json, refuse_reserved_fields, strategic_merge

RANK0_VARIABLE: Final = "TORCHX_RANK0_HOST"
REPLICA_VARIABLE: Final = "TORCHX_REPLICA_ID"
INDEX_ANNOTATION: Final = "batch.kubernetes.io/job-completion-index"
"""Of a pod, and a label of the same name."""
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
HOME: Final = "/home/kompress"
GRACE_SECONDS: Final = 60
SMALL_REQUESTS: Final = {"cpu": "250m", "memory": "512Mi"}
MAX_NAME: Final = 63


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the objects of an app go and whose they are."""

    name: str
    """Name of the Job; its pods' host names are `<name>-<index>`."""
    namespace: str
    service: str
    """Name of the headless Service."""
    selector: Mapping[str, str]
    """Labels of the pods that the Service resolves; they are put on the pods, too."""
    owner: Mapping[str, str] | None = None
    """apiVersion, kind, name and uid of what owns the Job and the Service."""
    managed_by: str = "kompress"
    watched: bool = False
    """Somebody watches the Job and ends its pods when one has failed."""


def owner_reference(owner: Mapping[str, str]) -> Json:
    """A controller's ownerReference that never blocks the owner's deletion."""
    return {**owner, "controller": True, "blockOwnerDeletion": False}


def build_service(placement: Placement, ports: Mapping[str, int]) -> Json:
    """The headless Service; its addresses are there before the pods are ready, as ranks meet before that."""
    metadata: Json = {
        "name": placement.service,
        "namespace": placement.namespace,
        "labels": {LABEL_MANAGED_BY: placement.managed_by, **placement.selector},
    }
    if placement.owner:
        metadata["ownerReferences"] = [owner_reference(placement.owner)]
    spec: Json = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": dict(placement.selector)}
    if ports:
        spec["ports"] = [{"name": name, "port": port, "targetPort": port} for name, port in ports.items()]
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def build_objects(app: AppDef, placement: Placement) -> tuple[Json, Json]:
    """The Service and the Job of an app of one role.

    Raises:
        SpecCannotWork: the app has several roles, retries or mounts, or a name is too long.
        InvalidManifest: the pod template touches a reserved field.
    """
    role = _only_role(app)
    longest = f"{placement.name}-{role.num_replicas - 1}"
    if len(longest) > MAX_NAME:
        raise SpecCannotWork(
            f"pod name {longest} has {len(longest)} characters, the limit is {MAX_NAME}", hint="give the app a shorter name"
        )
    options = role.metadata.get(SCHEDULER, PodOptions())
    labels = {LABEL_MANAGED_BY: placement.managed_by, **options.labels, **placement.selector}
    metadata: Json = {
        "name": placement.name,
        "namespace": placement.namespace,
        "labels": labels | dict(options.job_labels) | ({QUEUE_LABEL: options.queue} if options.queue else {}),
    }
    if placement.owner:
        metadata["ownerReferences"] = [owner_reference(placement.owner)]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": role.num_replicas,
            "parallelism": role.num_replicas,
            "backoffLimitPerIndex" if placement.watched else "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": _pod_template(role, options, placement, labels),
        },
    }
    return build_service(placement, role.port_map), job


def _only_role(app: AppDef) -> Role:
    if len(app.roles) != 1:
        raise SpecCannotWork(
            f"app {app.name} has {len(app.roles)} roles", hint="an Indexed Job runs one role: submit each as an app of its own"
        )
    role = app.roles[0]
    if role.max_retries:
        raise SpecCannotWork(
            f"role {role.name} wants {role.max_retries} retries",
            hint="leave max_retries at 0: a Job restarts single pods, not a gang",
        )
    if role.mounts:
        raise SpecCannotWork(f"role {role.name} has mounts", hint="name volumes and volumeMounts in the pod template instead")
    return role


def _pod_template(role: Role, options: PodOptions, placement: Placement, labels: Mapping[str, str]) -> Json:
    volumes, mounts = _volumes(options)
    container: Json = {
        "name": WORKER,
        "image": role.image,
        "command": [_expand(part, placement.name) for part in (role.entrypoint, *role.args)],
        "env": _environment(role, placement),
        "resources": _resources(role, options),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
    }
    if role.port_map:
        container["ports"] = [{"name": name, "containerPort": port} for name, port in role.port_map.items()]
    spec: Json = {
        "restartPolicy": "Never",
        "subdomain": placement.service,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": volumes,
    }
    if options.node_selector:
        spec["nodeSelector"] = dict(options.node_selector)
    if options.tolerations:
        spec["tolerations"] = [dict(entry) for entry in options.tolerations]
    refuse_reserved_fields(options.pod_template, "runtime.podTemplate")
    return strategic_merge({"metadata": {"labels": dict(labels)}, "spec": spec}, options.pod_template)


def _volumes(options: PodOptions) -> tuple[list[Json], list[Json]]:
    """Memory for the ranks' exchange, scratch and home, and one Secret per place."""
    volumes: list[Json] = [
        {"name": "dshm", "emptyDir": {"medium": "Memory"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "home", "emptyDir": {}},
    ]
    mounts: list[Json] = [
        {"name": "dshm", "mountPath": "/dev/shm"},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "home", "mountPath": HOME},
    ]
    for folder, secret in options.credentials.items():
        volumes.append({"name": f"credentials-{folder}", "secret": {"secretName": secret}})
        mounts.append({"name": f"credentials-{folder}", "mountPath": f"{CREDENTIALS_FOLDER}/{folder}", "readOnly": True})
    return volumes, mounts


def _environment(role: Role, placement: Placement) -> list[Json]:
    """A variable that is the replica's index comes from the pod itself; `$(TORCHX_REPLICA_ID)` puts it into a longer text."""
    index = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_ANNOTATION}']"}}
    variables: dict[str, Json] = {
        REPLICA_VARIABLE: {"valueFrom": index},
        RANK0_VARIABLE: {"value": f"{placement.name}-0.{placement.service}"},
        "HOME": {"value": HOME},
    }
    for name, text in role.env.items():
        variables[name] = {"valueFrom": index} if text == macros.replica_id else {"value": _expand(text, placement.name)}
    return [{"name": name, **source} for name, source in variables.items()]


def _expand(text: str, app_id: str) -> str:
    """Torchx's macros filled in, all else kept from the kubelet, which would read `$(NAME)` as a variable.

    What is known only in the pod becomes such a reference.
    """
    marker = "\0"
    filled = string.Template(text).safe_substitute(app_id=app_id, img_root="", rank0_env=RANK0_VARIABLE, replica_id=marker)
    return filled.replace("$", "$$").replace(marker, f"$({REPLICA_VARIABLE})")


def _resources(role: Role, options: PodOptions) -> Json:
    if options.resources is None:
        resource = role.resource
        amounts = {
            **({"cpu": str(resource.cpu)} if resource.cpu > 0 else {}),
            **({"memory": f"{resource.memMB}M"} if resource.memMB > 0 else {}),
            **({"nvidia.com/gpu": str(resource.gpu)} if resource.gpu > 0 else {}),
            **{name: str(amount) for name, amount in resource.devices.items()},
        }
        return {"limits": amounts} if amounts else {}
    limits, requests = ({k: str(v) for k, v in options.resources.get(kind, {}).items()} for kind in ("limits", "requests"))
    if options.small:
        limits = {name: amount for name, amount in limits.items() if "/" not in name}
        requests = {name: _least(amount, limits.get(name), requests.get(name)) for name, amount in SMALL_REQUESTS.items()}
    return {kind: amounts for kind, amounts in (("limits", limits), ("requests", requests)) if amounts}


def _least(*amounts: str | None) -> str:
    from kubernetes.utils.quantity import parse_quantity  # heavy, and a laptop needs none of it

    return min((amount for amount in amounts if amount is not None), key=parse_quantity)
