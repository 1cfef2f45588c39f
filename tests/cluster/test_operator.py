"""The operator process against a real API server, its controllers and its scheduler. No pod runs: the tests say what pods did.

What a user would lose: a job that ends as its stages did, a status that is true after every restart of the operator, and an
API server that is left alone while nothing changes.
"""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.operating import REPOSITORY, Job, Operator, eventually, operating
from testcluster.cluster import Connection


@pytest.fixture(scope="module")
def api_server(control_plane: Connection) -> Connection:
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"))
    control_plane.kubectl("wait", "--for=condition=Established", "crd/compressionjobs.kompress.io")
    return control_plane


@pytest.fixture
def operator(api_server: Connection, namespace: str, tmp_path: Path) -> Iterator[Operator]:
    with operating(api_server, namespace, tmp_path) as running:
        yield running


@pytest.fixture
def job(api_server: Connection, namespace: str) -> Job:
    return Job(api_server, namespace)


def run_to_the_end(job: Job) -> None:
    for stage in ("preflight", "adapt", "slim", "report"):
        job.succeed(stage)


def test_a_job_runs_its_stages_in_order_and_completes(operator: Operator, job: Job) -> None:
    job.create(goals=[{"metric": "accuracy", "atLeast": 0.9}])
    job.succeed("preflight")
    job.succeed("adapt", metrics={"accuracy": 0.98, "modelSizeBytes": 40e6})
    job.wait_for_attempt("slim", 1)
    assert job.job_names() == {"flowers-preflight-1", "flowers-adapt-1", "flowers-slim-1"}
    job.succeed("slim", metrics={"accuracy": 0.97, "modelSizeBytes": 10e6})
    job.wait_for_phase("Reporting")
    job.succeed("report")
    job.kubectl("wait", "--for=condition=Complete", "compressionjob/flowers", "--timeout=60s")
    status = job.status
    assert status["summary"] == {"stage": "", "progress": "2/2", "accuracy": 0.97, "smaller": 4.0}
    assert status["goals"][0]["met"] is True
    assert [entry["state"] for entry in status["stages"]] == ["Succeeded"] * 4
    assert status["specDigest"].startswith("sha256:")
    columns = job.kubectl("get", "cmpj")
    assert "Complete" in columns
