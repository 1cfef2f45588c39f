"""Fixtures that need a real server: control plane, cluster with real nodes, S3, MLflow. Each starts when the first test asks for it,
is shared by the session, and is gone after it, also after Ctrl-C. Unit tests ask for none. Each worker of `pytest -n` is a session.

`KUBECONFIG` may name a cluster to use instead: one of `python -m testcluster up` (its servers come along), or any other, with
`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `MLFLOW_TRACKING_URI` for servers that its pods reach too.
"""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from testcluster import processes
from testcluster.cluster import Cluster, Connection, running, sweep
from testcluster.servers import S3, Mlflow
from testcluster.settings import Settings, host_mounts


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM ends a session as Ctrl-C does, with its fixtures' teardown."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def settings_of_session(kind: str, **fields: object) -> Settings:
    """A cluster of this session only: whatever becomes of pytest, its processes end and the next session sweeps up."""
    sweep()
    return Settings(name=f"tests-{kind}-{os.getpid()}", owner=processes.identity(os.getpid()) or "", **fields)


def named_by_environment() -> Connection | None:
    """The cluster of `KUBECONFIG`, None when the variable is not set."""
    path = Path(os.environ["KUBECONFIG"]).absolute() if os.environ.get("KUBECONFIG") else None
    if path is None:
        return None
    if path.name == "kubeconfig" and (own := Cluster.load(path.parent)):
        return own
    environment = os.environ
    s3 = mlflow = None
    if "AWS_ENDPOINT_URL" in environment:
        keys = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
        s3 = S3(environment["AWS_ENDPOINT_URL"], *keys, environment.get("AWS_DEFAULT_REGION", "us-east-1"))
    if "MLFLOW_TRACKING_URI" in environment:
        mlflow = Mlflow(environment["MLFLOW_TRACKING_URI"])
    return Connection(path, s3, mlflow)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Connection]:
    """An API server with its controllers and scheduler, on 127.0.0.1; no pod ever runs there. Needs no root."""
    if named := named_by_environment():
        yield named
        return
    with running(settings_of_session("api")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Connection]:
    """Two real nodes with an S3 and an MLflow server that pods reach. Pods with `runtimeClassName: host` (image `archives.HOST`)
    find this Python environment and this repository at their own paths. Each claims two GPUs; a silent node is
    NotReady after 10 s.
    """
    if named := named_by_environment():
        yield named
        return
    mounts = host_mounts()
    with running(settings_of_session("nodes", nodes=2, gpus=2, grace=10, s3=True, mlflow=True, host_mounts=mounts)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server alone, on 127.0.0.1."""
    with running(settings_of_session("s3", control_plane=False, s3=True)) as servers:
        yield servers.s3


@pytest.fixture(scope="session")
def mlflow_server() -> Iterator[Mlflow]:
    """An MLflow server alone, on 127.0.0.1."""
    with running(settings_of_session("mlflow", control_plane=False, mlflow=True)) as servers:
        yield servers.mlflow


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace of the cluster that the test uses (`cluster`, else `control_plane`); deleted after the test."""
    connection: Connection = request.getfixturevalue("cluster" if "cluster" in request.fixturenames else "control_plane")
    name = f"test-{uuid.uuid4().hex[:8]}"
    connection.kubectl("create", "namespace", name)
    yield name
    connection.kubectl("delete", "namespace", name, "--wait=false")
    # Pods that are still there must not slow down the next test for the length of their own grace period.
    connection.kubectl("delete", "pods", "--all", f"--namespace={name}", "--grace-period=1", "--wait=false")
