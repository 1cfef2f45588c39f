"""A whole job under the rights that the chart gives the operator: suspension and TTL included. Which rights these are is said by
`test_chart.py`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.operating import REPOSITORY, Job, eventually, install_crds, operating
from testcluster.cluster import Connection

CHART = REPOSITORY / "charts/kompress"


class Restricted(Connection):
    """The same cluster as the chart's ServiceAccount in `namespace`."""

    def __init__(self, connection: Connection, namespace: str, folder: Path, *values: str) -> None:
        templates = ("--show-only=templates/rbac.yaml", "--show-only=templates/serviceaccount.yaml")
        given = [f"--set=watchNamespaces={{{namespace}}}", *(f"--set={value}" for value in values)]
        manifests = connection.helm("template", "kompress", str(CHART), f"--namespace={namespace}", *templates, *given)
        connection.kubectl("apply", "--namespace", namespace, "-f", "-", stdin=manifests)
        token = connection.kubectl("create", "token", "kompress", "--namespace", namespace).strip()
        config = json.loads(connection.kubectl("config", "view", "--raw", "-o", "json"))
        config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
        path = folder / "restricted.kubeconfig"
        path.write_text(json.dumps(config))
        super().__init__(path, None, None)


@pytest.fixture
def restricted(control_plane: Connection, namespace: str, tmp_path: Path) -> Iterator[Restricted]:
    install_crds(control_plane)
    yield Restricted(control_plane, namespace, tmp_path)
    control_plane.kubectl("delete", "clusterrole,clusterrolebinding", "kompress-cluster", "--ignore-not-found")


def test_a_whole_job_passes_and_is_cleaned_up(restricted: Restricted, control_plane: Connection, namespace: str, tmp_path: Path) -> None:
    job = Job(control_plane, namespace)
    with operating(restricted, namespace, tmp_path) as operator:
        job.create(ttlSecondsAfterFinished=1)
        job.succeed("preflight")
        job.wait_for_attempt("adapt", 1)
        job.patch({"suspend": True})
        eventually("its pods are gone", lambda: job.attempts() == {"preflight-1"})
        job.patch({"suspend": False})
        job.succeed("adapt", 2)
        job.succeed("slim")
        job.succeed("report")
        job.wait_for_phase("Complete")
        eventually("the TTL is over", lambda: not job.attempts() and not job.get("services", "-l", "kompress.io/job=flowers")["items"])
        assert "forbidden" not in operator.log.read_text().lower()


def test_without_the_cluster_role_a_named_runtime_is_refused_with_that_reason(
    control_plane: Connection, namespace: str, tmp_path: Path
) -> None:
    install_crds(control_plane)
    scoped = Restricted(control_plane, namespace, tmp_path, "rbac.clusterRole=false")
    job, plain = Job(control_plane, namespace, "named"), Job(control_plane, namespace, "plain")
    with operating(scoped, namespace, tmp_path):
        job.create(runtimeRef={"name": "a100"})
        plain.create()
        job.wait_for_phase("Failed")
        assert job.condition("Failed")["reason"] == "RuntimeNotFound"
        assert "without the right to read ClusterCompressionRuntimes" in job.condition("Failed")["message"]
        plain.wait_for_attempt("preflight", 1)
