"""The operator process against a real API server, its controllers and its scheduler. No pod runs: the tests say what pods did.

What a user would lose: a job that ends as its stages did, a reason that is true, machines that are freed, and an API server
that is left alone while nothing changes. Faults of the operator itself are in `test_operator_faults.py`.
"""

import itertools
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.operating import Job, Operator, eventually, install_crds, operating
from testcluster.cluster import Connection

NUMBER = itertools.count(1)


@pytest.fixture(scope="module")
def api_server(control_plane: Connection) -> Connection:
    install_crds(control_plane)
    return control_plane


@pytest.fixture(scope="module")
def place(api_server: Connection) -> Iterator[str]:
    """One namespace for all jobs of this module, so that one operator can serve them."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    api_server.kubectl("create", "namespace", name)
    yield name
    api_server.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def operator(api_server: Connection, place: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with operating(api_server, place, tmp_path_factory.mktemp("operator")) as running:
        yield running


@pytest.fixture
def job(api_server: Connection, place: str, operator: Operator) -> Iterator[Job]:
    job = Job(api_server, place, f"job{next(NUMBER)}")
    yield job
    job.kubectl("delete", "compressionjob", job.name, "--ignore-not-found", "--wait=false")


def test_a_job_runs_its_stages_in_order_and_completes(job: Job) -> None:
    job.create(goals=[{"metric": "accuracy", "atLeast": 0.9}])
    job.succeed("preflight")
    job.succeed("adapt", metrics={"accuracy": 0.98, "modelSizeBytes": 40e6})
    job.wait_for_attempt("slim", 1)
    assert job.attempts() == {"preflight-1", "adapt-1", "slim-1"}
    job.succeed("slim", metrics={"accuracy": 0.97, "modelSizeBytes": 10e6})
    job.wait_for_phase("Reporting")
    job.succeed("report")
    job.kubectl("wait", "--for=condition=Complete", f"compressionjob/{job.name}", "--timeout=60s")
    status = job.status
    assert status["summary"] == {"stage": "", "progress": "2/2", "accuracy": 0.97, "smaller": 4.0}
    assert status["goals"][0]["met"] is True
    assert [entry["state"] for entry in status["stages"]] == ["Succeeded"] * 4
    assert "Complete" in job.kubectl("get", "cmpj", job.name)
    described = job.kubectl("describe", "cmpj", job.name)
    assert "slim, attempt 1: Succeeded" in described and "GoalsMet" in described


def test_what_runs_is_kept_and_owned_and_nothing_is_written_on_the_users_object(job: Job) -> None:
    job.create()
    job.wait_for_attempt("preflight", 1)
    metadata = job.manifest["metadata"]
    assert "finalizers" not in metadata and "annotations" not in metadata
    revision, service = job.get("controllerrevision", job.name), job.get("service", job.name)
    assert revision["data"]["maxParallelStages"] == 1  # a built-in default: the merged spec is kept whole
    assert [thing["metadata"]["ownerReferences"][0]["uid"] for thing in (revision, service)] == [metadata["uid"]] * 2
    assert service["spec"]["publishNotReadyAddresses"] is True
    environment = {entry["name"]: entry.get("value") for entry in job.pods("preflight", 1)[0]["spec"]["containers"][0]["env"]}
    told = json.loads(environment["KOMPRESS_STAGE"])
    assert (told["job"]["uid"], told["kind"], told["attempt"]) == (metadata["uid"], "preflight", 1)


def test_a_preflight_that_fails_for_good_ends_the_job_before_any_training_pod(job: Job) -> None:
    job.create()
    job.fail(
        "preflight", code=78, reason="UnknownModel", message="no model resnet19", hint="did you mean resnet18?", field="spec.model.source"
    )
    job.wait_for_phase("Failed")
    failed = job.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "PreflightFailed")
    assert "spec.model.source: no model resnet19 (did you mean resnet18?)" in failed["message"]
    assert job.attempts() == {"preflight-1"}


def test_the_next_stage_starts_as_soon_as_the_containers_have_ended(job: Job) -> None:
    """Kubelet and Job controller take two more seconds until a Job is complete: each stage of a job would wait for nothing."""
    job.create()
    job.succeed("preflight", phase="Running")
    job.wait_for_attempt("adapt", 1)
    assert job.stage("preflight")["state"] == "Succeeded"
    assert "completionTime" not in job.get("job", f"{job.name}-preflight-1")["status"]


def test_a_gang_restarts_as_a_whole_and_the_first_error_is_named_even_if_its_pod_ends_last(job: Job) -> None:
    job.create(stages=[{"name": "adapt", "fineTune": {"strategy": "Full", "epochs": 1}, "runtime": {"nodes": 2}}])
    job.succeed("preflight")
    first, second = job.wait_for_attempt("adapt", 1, pods=2)
    for pod in (first, second):
        job.run_pod(pod)
    job.end_pod(first, 70, failure(0, "DistBackendError", time_us=2_000_000, secondary=True))
    eventually("the operator waits for the other pod", lambda: "failingSince" in job.stage("adapt")["attempts"][0])
    job.end_pod(second, 70, failure(1, "ValueError", time_us=1_000_000))
    ended = job.wait_for_end("adapt", 1)
    job.wait_for_attempt("adapt", 2, pods=2)
    assert (ended["outcome"], ended["rank"], ended["exitCode"], ended["spentRestart"]) == ("ValueError", 1, 70, True)
    assert ended["pod"] == second["metadata"]["name"]
    assert (job.status["restarts"], "failingSince" in ended) == (1, False)
    assert "adapt-1" in job.attempts(), "its pods ended by themselves: their logs stay"


def test_a_pod_that_does_not_notice_that_its_gang_is_dead_is_ended(job: Job) -> None:
    """The Job controller leaves it alone, so nobody but the operator frees its GPUs; the next attempt waits for them."""
    job.create(stages=[{"name": "adapt", "fineTune": {"strategy": "Full", "epochs": 1}, "runtime": {"nodes": 2}}])
    job.succeed("preflight")
    first, second = job.wait_for_attempt("adapt", 1, pods=2)
    for pod in (first, second):
        job.run_pod(pod)
    job.end_pod(second, 70, failure(1, "ValueError"))
    ended = job.wait_for_end("adapt", 1)
    job.wait_for_attempt("adapt", 2, pods=2)
    assert (ended["outcome"], ended["pod"]) == ("ValueError", second["metadata"]["name"])
    assert job.attempts() == {"preflight-1", "adapt-2"}


def failure(rank: int, reason: str, time_us: int = 1, **said: object) -> dict[str, object]:
    return {"outcome": "Failed", "reason": reason, "message": "boom", "exitCode": 70, "rank": rank, "timeUs": time_us, **said}


def test_a_stage_that_fails_too_often_fails_the_job_after_its_report(job: Job) -> None:
    job.create(restartPolicy={"maxRestarts": 1, "backoffSeconds": 0})
    job.succeed("preflight")
    job.fail("adapt", 1, reason="ValueError")
    job.fail("adapt", 2, reason="KeyError")
    job.wait_for_phase("Reporting")
    assert job.condition("Failed")["status"] == "False"
    job.succeed("report")
    status = job.wait_for_phase("Failed")
    assert job.condition("Failed")["reason"] == "RestartsExhausted"
    assert [entry["state"] for entry in status["stages"]] == ["Succeeded", "Failed", "Skipped", "Succeeded"]


def test_suspension_frees_the_machines_and_resuming_goes_on(job: Job) -> None:
    job.create()
    job.succeed("preflight")
    job.wait_for_attempt("adapt", 1)
    job.patch({"suspend": True})
    job.kubectl("wait", "--for=condition=Suspended", f"compressionjob/{job.name}", "--timeout=60s")
    assert job.attempts() == {"preflight-1"}
    assert (job.phase, job.stage("adapt")["state"]) == ("Suspended", "Suspended")
    job.patch({"suspend": False})
    job.succeed("adapt", 2)
    job.succeed("slim")
    job.succeed("report")
    job.wait_for_phase("Complete")
    assert [a["outcome"] for a in job.stage("adapt")["attempts"]] == ["Cancelled", "Succeeded"]
    assert job.status["restarts"] == 0


def owners(job: Job) -> set[str]:
    items = job.get("jobs", "-l", f"kompress.io/job={job.name}")["items"]
    return {item["metadata"]["ownerReferences"][0]["uid"] for item in items}


def test_a_deleted_job_takes_everything_with_it_and_can_be_created_again(job: Job) -> None:
    job.create()
    job.succeed("preflight")
    job.wait_for_attempt("adapt", 1)
    job.kubectl("delete", "compressionjob", job.name)
    job.create()  # at once: what the first one left is still being collected, and has the names that this one needs
    uid = job.manifest["metadata"]["uid"]
    eventually("only the new job's objects are there", lambda: owners(job) == {uid})
    job.succeed("preflight")
    job.wait_for_attempt("adapt", 1)
    assert owners(job) == {uid}
    job.kubectl("delete", "compressionjob", job.name)
    kinds = "jobs,controllerrevisions,services"
    eventually("nothing is left", lambda: not job.get(kinds, "-l", f"kompress.io/job={job.name}")["items"])


def test_a_name_that_belongs_to_someone_else_is_told(job: Job) -> None:
    job.kubectl("create", "job", f"{job.name}-preflight-1", "--image=x")
    job.create()
    job.wait_for_phase("Failed")
    assert job.condition("Failed")["reason"] == "NameTaken"
    assert f"{job.name}-preflight-1" in job.condition("Failed")["message"]


def test_what_the_api_server_refuses_is_told_in_its_words(job: Job) -> None:
    job.create(runtime={"image": "registry.example/jobs:1", "podTemplate": {"spec": {"nodeSelektor": {"a": "b"}}}})
    job.wait_for_phase("Failed")
    failed = job.condition("Failed")
    assert failed["reason"] == "CreateRefused"
    assert 'unknown field "spec.template.spec.nodeSelektor"' in failed["message"]


@pytest.mark.parametrize(
    ("spec", "reason", "path"),
    [
        ({"output": None}, "NoOutput", "spec.output"),
        ({"output": {"uri": "file:///models"}}, "NoOutput", "spec.output.uri"),
        ({"runtimeRef": {"name": "nowhere"}}, "RuntimeNotFound", "spec.runtimeRef.name"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_made(job: Job, spec: dict[str, object], reason: str, path: str) -> None:
    job.create(**spec)
    job.wait_for_phase("Failed")
    assert job.condition("Failed")["reason"] == reason
    assert path in job.condition("Failed")["message"]
    assert not job.attempts()


def test_a_runtime_that_comes_a_moment_later_is_taken(job: Job, api_server: Connection, place: str) -> None:
    job.create(runtimeRef={"name": place}, output=None)
    runtime = {"apiVersion": "kompress.io/v1alpha1", "kind": "ClusterCompressionRuntime", "metadata": {"name": place}}
    api_server.kubectl("create", "-f", "-", stdin=json.dumps(runtime | {"spec": {"output": {"uri": "s3://platform/models"}}}))
    try:
        job.wait_for_attempt("preflight", 1)
        assert job.get("controllerrevision", job.name)["data"]["output"] == {"uri": "s3://platform/models"}
    finally:
        api_server.kubectl("delete", "clustercompressionruntime", place)


def test_an_unschedulable_pod_is_named_long_before_its_deadline(job: Job) -> None:
    job.create()
    eventually("the pod's trouble is shown", lambda: "node" in job.condition("Running").get("message", ""))
    job.patch({"suspend": True})


def test_a_job_that_someone_deleted_is_started_again(job: Job) -> None:
    job.create()
    job.wait_for_attempt("preflight", 1)
    job.kubectl("delete", "job", f"{job.name}-preflight-1")
    job.wait_for_attempt("preflight", 2)
    assert job.wait_for_end("preflight", 1)["outcome"] == "JobDeleted"


def test_after_its_ttl_only_the_job_itself_is_left(job: Job) -> None:
    job.create(ttlSecondsAfterFinished=1)
    for stage in ("preflight", "adapt", "slim", "report"):
        job.succeed(stage)
    job.wait_for_phase("Complete")
    eventually("its Jobs are gone", lambda: not job.attempts())
    eventually("its Service is gone", lambda: not job.get("services", "-l", f"kompress.io/job={job.name}")["items"])
    assert job.phase == "Complete"


def test_metrics_tell_what_happens(job: Job, operator: Operator) -> None:
    job.create()
    job.succeed("preflight")
    job.wait_for_attempt("adapt", 1)
    figures = eventually("a stage that runs", lambda: (found := operator.metrics())['kompress_stages{state="Running"}'] and found)
    assert figures["kompress_leading"] == 1
    assert figures["kompress_stage_start_seconds_count"] >= 2
    assert figures['kompress_reconcile_seconds_count{result="done"}'] > 0
    assert operator.answer("healthz") == 200


def test_settings_that_can_not_be_used_are_told_at_once(api_server: Connection, place: str, tmp_path: Path) -> None:
    broken = Operator(api_server, place, tmp_path, workers="many")
    broken.start()
    assert broken.process is not None and broken.process.wait(60) == 2
    assert "KOMPRESS_WORKERS is 'many'" in broken.log.read_text()
