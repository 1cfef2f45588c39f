"""What Kubernetes' objects say in our words: a Job, a pod, and who owns what."""

from typing import Any

import pytest

from kompress_api.contract import StageFailure, StageSuccess
from kompress_api.reasons import Reason
from kompress_operator.translation import Key, build_attempt, build_pod, taken

KEY = Key("ml", "flowers", "u1")
TIME = "2027-01-15T08:00:00Z"
NOW = 1_800_000_000.0


def job(status: dict[str, Any], **spec: Any) -> dict[str, Any]:
    labels = {"kompress.io/job": "flowers", "kompress.io/stage": "adapt", "kompress.io/attempt": "3"}
    metadata = {"name": "flowers-adapt-3", "uid": "j3", "creationTimestamp": TIME, "labels": labels}
    return {"metadata": metadata, "spec": {"parallelism": 2, "completions": 2} | spec, "status": status}


def pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    known = {"name": "p-1", "annotations": {"batch.kubernetes.io/job-completion-index": "1"}, "creationTimestamp": TIME}
    return {"metadata": known | metadata, "spec": {"nodeName": "gpu-1"}, "status": status}


def worker(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "sidecar", "state": {"running": {}}}, {"name": "worker", "state": state}]}


def test_a_job_that_runs() -> None:
    found = build_attempt(job({"startTime": TIME, "ready": 1, "active": 2}))
    assert (found.stage, found.attempt, found.nodes, found.ready, found.started, found.queued) == ("adapt", 3, 2, 1, NOW, False)
    assert not found.ended


def test_a_job_that_kueue_holds_back() -> None:
    found = build_attempt(job({}, suspend=True))
    assert (found.queued, found.started) == (True, None)


def test_a_job_has_not_failed_before_its_controller_says_so() -> None:
    going = {"failed": 1, "failedIndexes": "1", "ready": 1, "active": 1}
    found = build_attempt(job(going))
    assert (found.failed_pods, found.ready, found.failed, found.ended) == (1, 1, False, False)
    conditions = [{"type": "Failed", "status": "True", "reason": "FailedIndexes", "message": "Job has failed indexes"}]
    found = build_attempt(job({"failed": 2, "conditions": conditions}))
    assert (found.failed, found.message) == (True, "FailedIndexes: Job has failed indexes")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("PreemptionByScheduler", Reason.PREEMPTED),
        ("DeletionByTaintManager", Reason.NODE_LOST),
        ("DeletionByPodGC", Reason.NODE_LOST),
        ("EvictionByEvictionAPI", Reason.EVICTED),
        ("TerminationByKubelet", Reason.EVICTED),
    ],
)
def test_each_disruption_has_a_name(reason: str, expected: Reason) -> None:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": TIME}
    found = build_pod(pod({"phase": "Running", "conditions": [condition]}, deletionTimestamp=TIME))
    assert (found.disruption, found.disrupted_at, found.delete_by) == (expected, NOW, NOW)


def test_a_pod_evicted_by_a_kubelet_that_set_no_condition() -> None:
    assert build_pod(pod({"phase": "Failed", "reason": "Evicted", "message": "low on memory"})).disruption == Reason.EVICTED


def test_the_termination_message_of_the_worker() -> None:
    message = '{"outcome":"Failed","reason":"ValueError","message":"boom","exitCode":70,"rank":3,"timeUs":1}'
    ended = {"exitCode": 70, "finishedAt": TIME, "message": message}
    found = build_pod(pod({"phase": "Failed", **worker(terminated=ended)}))
    assert isinstance(found.termination, StageFailure)
    assert (found.termination.rank, found.exit_code, found.finished_at, found.index) == (3, 70, NOW, 1)


def test_a_container_that_ended_well_counts_before_the_kubelet_has_ended_the_pod() -> None:
    message = '{"outcome":"Succeeded","artifact":"s3://b/a","digest":"sha256:a","key":"ab"}'
    found = build_pod(pod({"phase": "Running", **worker(terminated={"exitCode": 0, "finishedAt": TIME, "message": message})}))
    assert isinstance(found.termination, StageSuccess)
    assert (found.exit_code, found.ended) == (0, False)


def test_what_an_exit_code_means_is_not_said_before_the_pod_s_conditions_are_there() -> None:
    found = build_pod(pod({"phase": "Running", **worker(terminated={"exitCode": 137, "finishedAt": TIME})}))
    assert (found.exit_code, found.termination, found.ended) == (None, None, False)


@pytest.mark.parametrize("text", ["Killed", '{"outcome": "Fai', '{"outcome":"Other"}', ""])
def test_a_message_that_is_none_is_the_pods_last_words(text: str) -> None:
    found = build_pod(pod({"phase": "Failed", **worker(terminated={"exitCode": 1, "message": text})}))
    assert (found.termination, found.last_words) == (None, text)


def test_a_pod_killed_for_its_memory() -> None:
    found = build_pod(pod({"phase": "Failed", **worker(terminated={"exitCode": 137, "reason": "OOMKilled", "finishedAt": TIME})}))
    assert (found.oom, found.exit_code) == (True, 137)


def test_a_failed_init_container_speaks_for_a_worker_that_never_ran() -> None:
    init = {"initContainerStatuses": [{"state": {"terminated": {"exitCode": 3, "finishedAt": TIME}}}]}
    found = build_pod(pod({"phase": "Failed", **init, **worker(waiting={"reason": "PodInitializing"})}))
    assert (found.exit_code, found.started) == (3, False)


def test_what_a_pod_waits_for() -> None:
    pulling = build_pod(pod({"phase": "Pending", **worker(waiting={"reason": "ImagePullBackOff", "message": "not found"})}))
    assert (pulling.started, pulling.waiting, pulling.waiting_message) == (False, "ImagePullBackOff", "not found")
    nowhere = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
    unscheduled = build_pod(pod({"phase": "Pending", "conditions": [nowhere]}))
    assert (unscheduled.scheduled, unscheduled.waiting_message) == (False, "0/2 nodes")
    assert build_pod(pod({"phase": "Pending", **worker(waiting={"reason": "ContainerCreating"})})).waiting == ""


@pytest.mark.parametrize(
    ("metadata", "passing"),
    [
        ({}, False),
        ({"deletionTimestamp": TIME}, True),
        ({"ownerReferences": [{"kind": "CompressionJob", "name": "flowers", "uid": "older"}]}, True),
        ({"ownerReferences": [{"kind": "CronJob", "name": "nightly", "uid": "x"}]}, False),
    ],
)
def test_a_name_that_is_taken(metadata: dict[str, Any], passing: bool) -> None:
    assert taken("Job", {"metadata": {"name": "flowers-adapt-1", **metadata}}, KEY).passing is passing
