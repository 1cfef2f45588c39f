"""The operator is killed, frozen, doubled and interfered with, against a real API server: nothing is lost, nothing is done twice,
and nothing is written when nothing changed.
"""

import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.operating import Job, Operator, eventually, install_crds, operating
from testcluster.cluster import Connection
from testcluster.processes import ClusterError


@pytest.fixture(scope="module")
def api_server(control_plane: Connection) -> Connection:
    install_crds(control_plane)
    return control_plane


@pytest.fixture
def job(api_server: Connection, namespace: str) -> Job:
    return Job(api_server, namespace)


@pytest.fixture
def operator(api_server: Connection, namespace: str, tmp_path: Path) -> Iterator[Operator]:
    with operating(api_server, namespace, tmp_path) as running:
        yield running


def versions(job: Job) -> dict[str, str]:
    """The resourceVersion of everything that belongs to a job."""
    kinds = "compressionjobs,jobs,services,controllerrevisions"
    items = [item for item in job.get(kinds)["items"] if item["metadata"]["name"].startswith(job.name)]
    return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in items}


def outcomes(job: Job) -> dict[str, list[str]]:
    return {entry["name"]: [a["outcome"] for a in entry["attempts"]] for entry in job.status["stages"]}


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_any_instant_it_loses_nothing_and_repeats_nothing(operator: Operator, job: Job, seed: int) -> None:
    instants = random.Random(seed)

    def kill_soon() -> None:
        """Somewhere between the event and the end of what it sets off. The sleep awaits nothing: it is the instant of the kill,
        and what is asserted must hold for every instant."""
        time.sleep(instants.uniform(0, 0.4))
        operator.kill()
        operator.start()

    job.create()
    kill_soon()
    job.succeed("preflight")
    kill_soon()
    job.fail("adapt", 1)
    kill_soon()
    job.succeed("adapt", 2)
    kill_soon()
    job.succeed("slim")
    kill_soon()
    job.succeed("report")
    kill_soon()
    job.wait_for_phase("Complete")
    assert outcomes(job) == {
        "preflight": ["Succeeded"],
        "adapt": ["ValueError", "Succeeded"],
        "slim": ["Succeeded"],
        "report": ["Succeeded"],
    }
    assert job.attempts() == {"preflight-1", "adapt-1", "adapt-2", "slim-1", "report-1"}
    assert job.status["restarts"] == 1


def test_killed_while_it_suspends_it_still_frees_the_machines(operator: Operator, job: Job) -> None:
    job.create()
    job.succeed("preflight")
    job.wait_for_attempt("adapt", 1)
    job.patch({"suspend": True})
    eventually("the decision is written", lambda: job.phase == "Suspended")
    operator.kill()
    operator.start()
    eventually("the pods are gone", lambda: job.attempts() == {"preflight-1"})
    job.patch({"suspend": False})
    job.wait_for_attempt("adapt", 2)
    assert job.status["restarts"] == 0


def test_a_converged_job_costs_no_write_also_after_a_restart(operator: Operator, job: Job) -> None:
    running, ended = job, Job(job.connection, job.namespace, "ended")
    ended.create()
    for stage in ("preflight", "adapt", "slim", "report"):
        ended.succeed(stage)
    ended.wait_for_phase("Complete")
    running.create()
    running.succeed("preflight")
    running.run_pod(running.wait_for_attempt("adapt", 1)[0])
    eventually("the Job controller has seen the pod", lambda: running.get("job", "flowers-adapt-1")["status"].get("ready") == 1)
    eventually("the stage is shown", lambda: running.condition("Running").get("message") == "adapt (attempt 1)")
    before = versions(running) | versions(ended)
    operator.stop()
    operator.start()
    operator.wait_until_ready()
    eventually("both were looked at", lambda: operator.metrics().get('kompress_reconcile_seconds_count{result="done"}', 0) >= 2)
    eventually("nothing waits", lambda: operator.metrics()["kompress_queue_depth"] == 0)
    assert versions(running) | versions(ended) == before
    assert operator.metrics().get('kompress_status_writes_total{result="written"}', 0) == 0


def test_someone_who_writes_all_the_time_does_not_keep_it_from_finishing(operator: Operator, job: Job) -> None:
    """Each foreign write makes what was observed stale: the status write is refused, and the job is observed again."""
    job.create()
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            job.kubectl("label", "compressionjob", job.name, f"note=n{number}", "--overwrite")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for stage in ("preflight", "adapt", "slim", "report"):
            job.succeed(stage)
        job.wait_for_phase("Complete")
    finally:
        done.set()
        writer.join()
    assert all(len(found) == 1 for found in outcomes(job).values())


def test_a_status_that_someone_spoilt_is_refused_or_put_right(operator: Operator, job: Job) -> None:
    job.create()
    job.wait_for_attempt("preflight", 1)
    with pytest.raises(ClusterError, match="Unsupported value"):
        job.kubectl("patch", "compressionjob", job.name, "--subresource=status", "--type=merge", "-p", '{"status": {"phase": "Done"}}')
    job.kubectl("patch", "compressionjob", job.name, "--subresource=status", "--type=merge", "-p", '{"status": {"phase": "Running"}}')
    eventually("the phase is true again", lambda: job.phase == "Preflight")


def replicas(connection: Connection, namespace: str, folder: Path) -> list[Operator]:
    return [Operator(connection, namespace, folder, pod_name=f"operator-{index}") for index in (0, 1)]


def leader_of(operators: list[Operator]) -> Operator | None:
    return next((operator for operator in operators if leads(operator)), None)


def leads(operator: Operator) -> bool:
    try:
        return operator.metrics()["kompress_leading"] == 1
    except OSError:
        return False


def run_to_the_end(job: Job, *stages: str) -> dict[str, Any]:
    for stage in stages:
        job.succeed(stage)
    return job.wait_for_phase("Complete")


def test_of_two_replicas_one_works_and_the_other_takes_over(api_server: Connection, namespace: str, tmp_path: Path, job: Job) -> None:
    operators = replicas(api_server, namespace, tmp_path)
    for operator in operators:
        operator.start()
    try:
        for operator in operators:
            operator.wait_until_ready()
        job.create()
        job.succeed("preflight")
        job.wait_for_attempt("adapt", 1)
        first = leader_of(operators)
        assert first is not None and sum(leads(operator) for operator in operators) == 1
        first.kill()
        run_to_the_end(job, "adapt", "slim", "report")
        lease = job.get("lease", "kompress")["spec"]
        assert lease["holderIdentity"] == next(o for o in operators if o is not first).environment["KOMPRESS_POD_NAME"]
        assert all(len(found) == 1 for found in outcomes(job).values())
    finally:
        for operator in operators:
            operator.stop()


def test_a_leader_that_was_frozen_does_not_go_on_when_it_wakes(api_server: Connection, namespace: str, tmp_path: Path, job: Job) -> None:
    operators = replicas(api_server, namespace, tmp_path)
    operators[0].start()
    try:
        operators[0].wait_until_ready()
        job.create()
        job.wait_for_attempt("preflight", 1)
        frozen = operators[0].process
        assert frozen is not None
        frozen.send_signal(signal.SIGSTOP)
        operators[1].start()
        operators[1].wait_until_ready()
        job.succeed("preflight")
        job.succeed("adapt")
        job.wait_for_attempt("slim", 1)
        frozen.send_signal(signal.SIGCONT)
        assert frozen.wait(60) == 1  # it has lost the Lease, and says so
        run_to_the_end(job, "slim", "report")
        assert all(len(found) == 1 for found in outcomes(job).values())
    finally:
        operators[1].stop()
        if operators[0].process is not None and operators[0].process.poll() is None:
            operators[0].kill()


def test_an_orderly_end_gives_the_lease_back(operator: Operator, job: Job) -> None:
    eventually("it leads", lambda: leads(operator))
    assert operator.stop() == 0
    assert job.get("lease", "kompress")["spec"].get("holderIdentity", "") == ""
