"""What e2e tests of jobs share: the operator, installed by the chart from its own image, with the platform's defaults."""

import pytest

import installation
from testcluster.cluster import Connection


@pytest.fixture(scope="session")
def operator(cluster: Connection) -> Connection:
    """The cluster, with the operator ready and examples/runtime.yaml applied."""
    installation.install_operator(cluster)
    installation.install_runtime(cluster)
    return cluster


@pytest.fixture
def team(operator: Connection, namespace: str) -> str:
    """A namespace whose jobs reach the platform's S3."""
    installation.prepare_namespace(operator, namespace)
    return namespace
