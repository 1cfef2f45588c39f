"""torchx scheduler `kubernetes_job`: an app as an Indexed Job and a headless Service, on any cluster, without Volcano.

`torchx run -s kubernetes_job dist.torchrun -j 2x4 --script train.py`. The objects are those of `kompress_operator.launch.objects`,
a pure builder; here is what talks to a cluster. torchx finds this file by its folder: `torchx_plugins` is a namespace
package and must have no `__init__.py`. An app is called `<namespace>:<name of the Job>`.
"""

import copy
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from torchx.plugins import register
from torchx.schedulers.api import (
    DescribeAppResponse,
    ListAppResponse,
    Scheduler,
    Stream,
    StructuredOpts,
    filter_regex,
)
from torchx.schedulers.ids import make_unique
from torchx.specs import (
    AppDef,
    AppDryRunInfo,
    AppState,
    CfgVal,
    ReplicaStatus,
    Role,
    RoleStatus,
    is_terminal,
    runopts,
)
from torchx.util.strings import normalize_str

from kompress_api.manifest import read_yaml
from kompress_api.names import LABEL_MANAGED_BY
from kompress_operator.launch.app import SCHEDULER, PodOptions
from kompress_operator.launch.merge import strategic_merge
from kompress_operator.launch.objects import INDEX_ANNOTATION, QUEUE_LABEL, Placement, build_objects, owner_reference

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from kubernetes.client.rest import ApiException

Job = Any
Pod = Any
"""As the client's models; their types say Optional of every field."""

MANAGED_BY = "torchx.pytorch.org"
SELECTOR = "app.kubernetes.io/instance"
LABEL_ROLE = "torchx.pytorch.org/role-name"
CANCELLED = "torchx.pytorch.org/cancelled"
JOB_LABEL = "batch.kubernetes.io/job-name"
MAX_APP_NAME = 40

PHASES = {
    "Pending": AppState.PENDING,
    "Running": AppState.RUNNING,
    "Succeeded": AppState.SUCCEEDED,
    "Failed": AppState.FAILED,
}


@dataclasses.dataclass
class Opts(StructuredOpts):
    """Run options (`torchx runopts kubernetes_job`)."""

    namespace: str | None = None
    """Namespace of the Job; default: that of the current context, else `default`."""

    service_account: str | None = None
    """Service account of the pods."""

    queue: str | None = None
    """Kueue LocalQueue that admits the Job."""

    pod_template: str | None = None
    """YAML file with {metadata, spec}, laid over the pods by strategic merge; the container is called `worker`."""


@dataclasses.dataclass
class Objects:
    """What is submitted; printed as YAML."""

    service: dict[str, Any]
    job: dict[str, Any]

    def __str__(self) -> str:
        from io import StringIO

        from ruamel.yaml import YAML

        text = StringIO()
        yaml = YAML()
        yaml.dump_all([self.service, self.job], text)
        return text.getvalue()


class KubernetesJobScheduler(Scheduler[Opts]):
    """Runs apps of one role as Indexed Jobs. Cancelling stops the pods and keeps the Job; deleting removes all."""

    def __init__(self, session_name: str, client: "ApiClient | None" = None) -> None:
        super().__init__(SCHEDULER, session_name)
        self._client = client

    def _run_opts(self) -> runopts:
        return Opts.as_runopts()

    def _submit_dryrun(self, app: AppDef, cfg: Opts) -> AppDryRunInfo[Objects, Opts]:
        name = make_unique(normalize_str(app.name)[:MAX_APP_NAME].strip("-") or "app")
        name = name if name[0].isalpha() else f"app-{name}"
        placement = Placement(
            name=name, namespace=cfg.namespace or self._default_namespace(), service=name, selector={SELECTOR: name}, managed_by=MANAGED_BY
        )
        service, job = build_objects(_with_options(app, cfg), placement)
        return AppDryRunInfo(Objects(service, job), str)

    def schedule(self, dryrun_info: AppDryRunInfo[Objects, Opts]) -> str:
        """The Job first, as it owns the Service: whatever happens in between, deleting the Job leaves nothing."""
        from kubernetes.client.rest import ApiException

        service, job = copy.deepcopy(dryrun_info.request.service), dryrun_info.request.job
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        try:
            made = self._batch().create_namespaced_job(namespace, job, field_validation="Strict")
        except ApiException as error:
            raise _refusal("Job", error) from error
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": made.metadata.uid}
        service["metadata"]["ownerReferences"] = [owner_reference(owner)]
        try:
            self._core().create_namespaced_service(namespace, service, field_validation="Strict")
        except ApiException as error:
            self._delete(namespace, name)
            raise _refusal("Service", error) from error
        return f"{namespace}:{name}"

    def describe(self, app_id: str) -> DescribeAppResponse | None:
        namespace, name = _parse(app_id)
        job = self._job(namespace, name)
        if job is None:
            return None
        role, (worker, *_) = job.metadata.labels.get(LABEL_ROLE, "worker"), job.spec.template.spec.containers
        service = job.spec.template.spec.subdomain
        replicas = [
            ReplicaStatus(
                id=_index(pod),
                role=role,
                state=PHASES.get(pod.status.phase, AppState.UNKNOWN),
                hostname=f"{name}-{_index(pod)}.{service}.{namespace}.svc",
            )
            for pod in sorted(self._pods(namespace, name), key=_index)
        ]
        return DescribeAppResponse(
            app_id=app_id,
            state=_state(job),
            msg=_message(job),
            roles=[Role(name=role, image=worker.image, num_replicas=job.spec.completions)],
            roles_statuses=[RoleStatus(role, replicas)],
        )

    def list(self, cfg: Mapping[str, CfgVal] | None = None) -> list[ListAppResponse]:
        namespace = str((cfg or {}).get("namespace") or self._default_namespace())
        jobs = self._batch().list_namespaced_job(namespace, label_selector=f"{LABEL_MANAGED_BY}={MANAGED_BY}").items
        return [ListAppResponse(app_id=f"{namespace}:{job.metadata.name}", state=_state(job)) for job in jobs]

    def log_iter(
        self,
        app_id: str,
        role_name: str,
        k: int = 0,
        regex: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        should_tail: bool = False,
        streams: Stream | None = None,
    ) -> Iterable[str]:
        """Lines of replica `k`; with `should_tail` waits for its start and follows it to its end.

        Raises:
            ValueError: `until` or one stream was asked for (Kubernetes keeps one log), or there is no such replica.
        """
        if until is not None or streams not in (None, Stream.COMBINED):
            raise ValueError("Kubernetes keeps one log per container: leave out `until` and the choice of a stream")
        namespace, name = _parse(app_id)
        pod = self._started_pod(namespace, name, k) if should_tail else self._pod(namespace, name, k)
        if pod is None:
            raise ValueError(f"{app_id} has no pod with index {k}")
        options: dict[str, Any] = {"container": "worker", "follow": should_tail, "_preload_content": False}
        if since is not None:
            options["since_seconds"] = max(1, int((datetime.now(since.tzinfo) - since).total_seconds()))
        response = self._core().read_namespaced_pod_log(pod.metadata.name, namespace, **options)
        lines = (line.decode(errors="replace") for line in response)
        return filter_regex(regex, lines) if regex else lines

    def _cancel_existing(self, app_id: str) -> None:
        """Stops the pods and keeps the Job to look at. A queue would start it again, so a queued one is deleted."""
        namespace, name = _parse(app_id)
        job = self._job(namespace, name)
        if job is None or is_terminal(_state(job)):
            return
        if QUEUE_LABEL in job.metadata.labels:
            self._delete(namespace, name)
            return
        patch = {"metadata": {"annotations": {CANCELLED: "true"}}, "spec": {"suspend": True}}
        self._batch().patch_namespaced_job(name, namespace, patch)

    def _delete_existing(self, app_id: str) -> None:
        self._delete(*_parse(app_id))

    def _delete(self, namespace: str, name: str) -> None:
        self._batch().delete_namespaced_job(name, namespace, propagation_policy="Background")

    def _job(self, namespace: str, name: str) -> Job | None:
        from kubernetes.client.rest import ApiException

        try:
            return self._batch().read_namespaced_job(name, namespace)
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def _pods(self, namespace: str, name: str, *labels: str) -> Iterable[Pod]:
        selector = ",".join([f"{JOB_LABEL}={name}", *labels])
        return self._core().list_namespaced_pod(namespace, label_selector=selector).items

    def _pod(self, namespace: str, name: str, index: int) -> Pod | None:
        return next(iter(self._pods(namespace, name, f"{INDEX_ANNOTATION}={index}")), None)

    def _started_pod(self, namespace: str, name: str, index: int) -> Pod | None:
        """Waits until the pod has begun to run, or the app is over without it."""
        from kubernetes.watch import Watch

        while (job := self._job(namespace, name)) is not None:
            pod = self._pod(namespace, name, index)
            if (pod is not None and pod.status.phase != "Pending") or is_terminal(_state(job)):
                return pod
            watch = Watch()
            events = watch.stream(self._core().list_namespaced_pod, namespace, label_selector=f"{JOB_LABEL}={name}", timeout_seconds=10)
            for event in events:
                pod = event["object"]
                if _index(pod) == index and pod.status.phase != "Pending":
                    watch.stop()
        return None

    def _api_client(self) -> "ApiClient":
        from kubernetes import client, config

        if self._client is None:
            configuration = client.Configuration()
            try:
                config.load_incluster_config(client_configuration=configuration)
            except config.ConfigException:
                config.load_kube_config(client_configuration=configuration)
            self._client = client.ApiClient(configuration)
        return self._client

    def _batch(self) -> Any:
        from kubernetes import client

        return client.BatchV1Api(self._api_client())

    def _core(self) -> Any:
        from kubernetes import client

        return client.CoreV1Api(self._api_client())

    def _default_namespace(self) -> str:
        from kubernetes import config

        try:
            _, context = config.list_kube_config_contexts()
        except config.ConfigException:
            return "default"
        return str(context["context"].get("namespace", "default"))


def _with_options(app: AppDef, cfg: Opts) -> AppDef:
    """A copy of the app whose roles carry the run options; the caller's own stays as it is."""
    template: dict[str, Any] = {}
    if cfg.pod_template:
        (template,) = read_yaml(pathlib.Path(cfg.pod_template).read_bytes()) or [{}]
    if cfg.service_account:
        template = strategic_merge(template, {"spec": {"serviceAccountName": cfg.service_account}})
    roles = []
    for role in app.roles:
        own = role.metadata.get(SCHEDULER) or PodOptions()
        options = dataclasses.replace(
            own,
            queue=cfg.queue or own.queue,
            pod_template=strategic_merge(own.pod_template, template),
            labels={**own.labels, LABEL_ROLE: normalize_str(role.name)[:63].strip("-")},
        )
        changed = copy.copy(role)
        changed.metadata = {**role.metadata, SCHEDULER: options}
        roles.append(changed)
    return AppDef(name=app.name, roles=roles, metadata=app.metadata)


def _parse(app_id: str) -> tuple[str, str]:
    namespace, _, name = app_id.rpartition(":")
    if not namespace:
        raise ValueError(f"{app_id} is no app of this scheduler: they are called <namespace>:<job>")
    return namespace, name


def _index(pod: Pod) -> int:
    return int(pod.metadata.labels.get(INDEX_ANNOTATION, 0))


def _state(job: Job) -> AppState:
    true = {condition.type for condition in job.status.conditions or () if condition.status == "True"}
    if "Complete" in true:
        return AppState.SUCCEEDED
    if "Failed" in true:
        return AppState.FAILED
    if CANCELLED in (job.metadata.annotations or {}):
        return AppState.CANCELLED
    return AppState.RUNNING if job.status.ready else AppState.PENDING


def _message(job: Job) -> str:
    said = [condition.message for condition in job.status.conditions or () if condition.status == "True" and condition.message]
    return said[-1] if said else ""


def _refusal(kind: str, error: "ApiException") -> RuntimeError:
    import json

    try:
        reason = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        reason = f"{error.status} {error.reason}"
    return RuntimeError(f"the API server refused the {kind}: {reason}")


@register.scheduler(name=SCHEDULER)
def create_scheduler(session_name: str, client: "ApiClient | None" = None, **_: object) -> KubernetesJobScheduler:
    """Called by torchx."""
    return KubernetesJobScheduler(session_name, client)
