"""The objects of a stage attempt: every field that a gang, a queue or a locked-down namespace relies on."""

from typing import Any

import pytest
from torchx.components.dist import torchrun
from torchx.specs import AppDef, Role

import manifests
from kompress_api.contract import JobIdentity, StageInput
from kompress_api.errors import InvalidManifest, SpecCannotWork
from kompress_api.manifest import parse_spec
from kompress_api.merge import MergedSpec, merge
from kompress_api.runtime import ClusterCompressionRuntimeSpec
from kompress_api.status import CompressionJobStatus
from kompress_operator.launch.app import build_app
from kompress_operator.launch.inputs import build_input
from kompress_operator.launch.objects import Placement, build_objects

OWNER = {"apiVersion": "kompress.io/v1alpha1", "kind": "CompressionJob", "name": "good", "uid": "u1"}
PLACEMENT = Placement(name="good-adapt-1", namespace="ml", service="good", selector={"kompress.io/job": "good"}, owner=OWNER, watched=True)
JOB = JobIdentity(name="good", namespace="ml", uid="u1")


def merged(**runtime: object) -> MergedSpec:
    platform = {
        "output": {"uri": "s3://models/all", "credentialsSecret": "s3"},
        "tracking": {"uri": "http://mlflow:5000"},
        "runtime": {"image": "jobs:1", "resources": {"limits": {"nvidia.com/gpu": 2, "cpu": 4, "memory": "8Gi"}}, **runtime},
    }
    return merge(parse_spec(manifests.good()["spec"]), ClusterCompressionRuntimeSpec.model_validate(platform))


def objects(stage: str = "adapt", reuse: bool = False, nodes: int | None = None, **runtime: object) -> tuple[Any, Any]:
    spec = merged(**runtime)
    stage_input = build_input(JOB, spec, CompressionJobStatus(), stage, 1, reuse=reuse)
    return build_objects(
        build_app(spec, stage_input, nodes=nodes, labels={"kueue.x-k8s.io/priority-class": "high", "team": "a"}), PLACEMENT
    )


def environment(job: Any) -> dict[str, Any]:
    (worker,) = job["spec"]["template"]["spec"]["containers"]
    return {entry.pop("name"): entry.get("value", entry) for entry in worker["env"]}


def test_a_gang_starts_whole_once_and_finds_its_first_rank() -> None:
    service, job = objects(nodes=3)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert (spec["podReplacementPolicy"], pod["restartPolicy"], pod["subdomain"]) == ("Failed", "Never", "good")
    assert environment(job)["KOMPRESS_MASTER"] == "good-adapt-1-0.good:29500"
    assert (service["metadata"]["name"], service["spec"]["clusterIP"]) == ("good", "None")
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_a_failed_pod_leaves_the_others_their_last_words_where_somebody_ends_them() -> None:
    """Without the operator nobody would: the Job would run on, as one rank of it is dead."""
    spec = objects(nodes=3)[1]["spec"]
    assert (spec["backoffLimitPerIndex"], "backoffLimit" in spec) == (0, False)
    app = AppDef("a", roles=[Role("worker", "x", num_replicas=3)])
    _, alone = build_objects(app, Placement(name="a", namespace="ml", service="a", selector={"a": "a"}))
    assert (alone["spec"]["backoffLimit"], "backoffLimitPerIndex" in alone["spec"]) == (0, False)


def test_everything_is_gone_with_its_owner() -> None:
    for made in objects():
        assert made["metadata"]["ownerReferences"] == [{**OWNER, "controller": True, "blockOwnerDeletion": False}]


def test_a_pod_keeps_to_the_restricted_level_and_can_write_where_it_must() -> None:
    _, job = objects()
    pod = job["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert worker["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert worker["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] == 60
    volumes = {entry["name"]: entry for entry in pod["volumes"]}
    assert {mount["mountPath"]: volumes[mount["name"]] for mount in worker["volumeMounts"]} == {
        "/dev/shm": {"name": "dshm", "emptyDir": {"medium": "Memory"}},
        "/tmp": {"name": "tmp", "emptyDir": {}},
        environment(job)["HOME"]: {"name": "home", "emptyDir": {}},
        "/var/run/kompress/credentials/output": {"name": "credentials-output", "secret": {"secretName": "s3"}},
    }


def test_a_pod_learns_its_index_and_its_stage() -> None:
    _, job = objects()
    variables = environment(job)
    assert variables["KOMPRESS_POD_INDEX"]["valueFrom"]["fieldRef"]["fieldPath"].endswith("['batch.kubernetes.io/job-completion-index']")
    assert (variables["KOMPRESS_NODES"], variables["KOMPRESS_PROCESSES"]) == ("1", "auto")
    assert StageInput.model_validate_json(variables["KOMPRESS_STAGE"]).name == "adapt"


def test_labels_find_the_attempt_and_hand_it_to_its_queue() -> None:
    _, job = objects(queueName="gpus")
    own = {"kompress.io/job": "good", "kompress.io/stage": "adapt", "kompress.io/attempt": "1", "app.kubernetes.io/managed-by": "kompress"}
    kueue = {"kueue.x-k8s.io/queue-name": "gpus", "kueue.x-k8s.io/priority-class": "high"}
    assert job["metadata"]["labels"] == own | kueue
    assert job["spec"]["template"]["metadata"]["labels"] == own


@pytest.mark.parametrize(("stage", "reuse"), [("preflight", False), ("report", False), ("adapt", True)])
def test_what_needs_no_gpu_asks_for_none(stage: str, reuse: bool) -> None:
    _, job = objects(stage, reuse, elastic={"minNodes": 1, "maxNodes": 4}, nodes=None)
    (worker,) = job["spec"]["template"]["spec"]["containers"]
    assert worker["resources"] == {"limits": {"cpu": "4", "memory": "8Gi"}, "requests": {"cpu": "250m", "memory": "512Mi"}}
    assert (job["spec"]["completions"], environment(job)["KOMPRESS_PROCESSES"]) == (1, "1")


def test_a_small_pod_never_requests_more_than_its_limit() -> None:
    _, job = objects("preflight", resources={"limits": {"cpu": "100m", "memory": "8Gi"}, "requests": {"memory": "64Mi"}})
    (worker,) = job["spec"]["template"]["spec"]["containers"]
    assert worker["resources"]["requests"] == {"cpu": "100m", "memory": "64Mi"}


def test_an_elastic_gang_is_told_its_bounds() -> None:
    _, job = objects(nodes=3, elastic={"minNodes": 1, "maxNodes": 4})
    assert (job["spec"]["parallelism"], environment(job)["KOMPRESS_NODES"]) == (3, "1:4")


def test_a_pod_template_is_laid_over_all_else() -> None:
    worker = {"name": "worker", "env": [{"name": "HOME", "value": "/data"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    template = {"spec": {"serviceAccountName": "trainer", "securityContext": {"runAsUser": 1000}, "containers": [worker]}}
    _, job = objects(podTemplate=template, tolerations=[{"key": "gpu"}], nodeSelector={"zone": "a"})
    pod = job["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["tolerations"], pod["nodeSelector"]) == ("trainer", [{"key": "gpu"}], {"zone": "a"})
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 1000
    assert environment(job)["HOME"] == "/data"


def test_a_pod_template_that_breaks_the_gang_is_refused() -> None:
    with pytest.raises(InvalidManifest, match="restartPolicy"):
        objects(podTemplate={"spec": {"restartPolicy": "Always"}})


def test_a_users_dollar_reaches_the_process_as_it_was_written() -> None:
    """torchx and the kubelet both read some of them as variables; the kubelet turns `$$` into `$`."""
    spec = merged().model_copy(update={"seed": 1})
    model = spec.model.model_copy(update={"arguments": {"pattern": "$(HOME) ${replica_id} $$"}})
    stage_input = build_input(JOB, spec.model_copy(update={"model": model}), CompressionJobStatus(), "adapt", 1)
    _, job = build_objects(build_app(spec, stage_input), PLACEMENT)
    assert "$$(HOME) $${replica_id} $$$$" in environment(job)["KOMPRESS_STAGE"]


def test_torchruns_component_runs_unchanged() -> None:
    app = torchrun("--lr", "$HOME", script="train_it.py", image="torch:1", j="2x4", cpu=2, gpu=1, memMB=1024)
    placement = Placement(name="train-x1", namespace="ml", service="train-x1", selector={"app.kubernetes.io/instance": "train-x1"})
    _, job = build_objects(app, placement)
    (worker,) = job["spec"]["template"]["spec"]["containers"]
    shell, flag, script = worker["command"]
    assert (shell, flag) == ("bash", "-c")
    assert "--rdzv_endpoint $${TORCHX_RANK0_HOST:=localhost}:29500 --rdzv_id 'train-x1' --nnodes 2" in script
    assert environment(job)["TORCHX_RANK0_HOST"] == "train-x1-0.train-x1"
    assert worker["resources"] == {"limits": {"cpu": "2", "memory": "1024M", "nvidia.com/gpu": "1"}}
    assert job["spec"]["completions"] == 2


@pytest.mark.parametrize(
    ("app", "said"),
    [
        (AppDef("a", roles=[Role("one", "x"), Role("two", "x")]), "2 roles"),
        (AppDef("a", roles=[Role("one", "x", max_retries=1)]), "1 retries"),
        (AppDef("a", roles=[Role("one", "x", num_replicas=10**52)]), "the limit is 63"),
    ],
)
def test_what_a_job_can_not_do_is_refused(app: AppDef, said: str) -> None:
    with pytest.raises(SpecCannotWork, match=said):
        build_objects(app, PLACEMENT)
