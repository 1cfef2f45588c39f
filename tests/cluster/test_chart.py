"""The chart on a real control plane without nodes: every supported combination installs, the operator gets its rights and no more,
an upgrade upgrades the CRDs, and an uninstallation keeps the users' jobs.

The control plane is this module's own: elsewhere the CRDs may be installed already, and Helm leaves alone what is not its own.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from cluster.operating import KINDS, Job, operating, wait_until_served
from testcluster import processes
from testcluster.cluster import Connection, running
from testcluster.processes import ClusterError
from testcluster.settings import Settings

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts/kompress"
COMBINATIONS = sorted((CHART / "ci").glob("*-values.yaml"), key=lambda path: path.name)
HOME = "kompress-system"
OPERATOR = f"system:serviceaccount:{HOME}:kompress"
JOB = """
apiVersion: kompress.io/v1alpha1
kind: CompressionJob
metadata: {name: mine, namespace: team-a}
spec:
  task: image-classification
  model: {source: "torchvision://resnet18"}
  dataset: {source: "builtin://digits"}
  stages: [{name: tune, fineTune: {epochs: 1}}]
"""
POD_MONITORS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: PodMonitor, listKind: PodMonitorList, plural: podmonitors, singular: podmonitor}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


@pytest.fixture(scope="module")
def cluster_without_kompress() -> Iterator[Connection]:
    with running(Settings(name=f"tests-chart-{os.getpid()}", owner=processes.identity(os.getpid()) or "")) as connection:
        connection.kubectl("create", "--filename=-", stdin=POD_MONITORS)
        wait_until_served(connection, "podmonitors.monitoring.coreos.com")
        for name in (HOME, "team-a", "team-b", "elsewhere"):
            connection.kubectl("create", "namespace", name)
        # No pod of the chart may need more than this.
        connection.kubectl("label", "namespace", HOME, "pod-security.kubernetes.io/enforce=restricted")
        yield connection


@pytest.fixture
def helm(cluster_without_kompress: Connection) -> Iterator["Helm"]:
    helm = Helm(cluster_without_kompress)
    yield helm
    if helm.get("crd", *KINDS, "--ignore-not-found"):
        helm.wait_for_crds()
    helm.connection.helm("uninstall", "kompress", f"--namespace={HOME}", "--ignore-not-found", "--wait")
    helm.connection.kubectl("delete", "crd", *KINDS, "--ignore-not-found")


class Helm:
    """The release under test."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def upgrade(self, *options: str, chart: Path = CHART) -> None:
        self.connection.helm("upgrade", "--install", "kompress", str(chart), f"--namespace={HOME}", *options)

    def wait_for_crds(self) -> None:
        wait_until_served(self.connection, *KINDS)

    def as_operator(self, folder: Path) -> Connection:
        """The cluster as its operator's ServiceAccount sees it."""
        config = json.loads(self.connection.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": self.connection.kubectl("create", "token", "kompress", f"--namespace={HOME}").strip()}
        (folder / "kubeconfig").write_text(json.dumps(config))
        return Connection(folder / "kubeconfig", None, None)

    def create_job(self) -> None:
        self.wait_for_crds()
        self.connection.kubectl("create", "--filename=-", stdin=JOB)

    def get(self, *what: str) -> str:
        return self.connection.kubectl("get", *what, "--output=name")

    def jsonpath(self, path: str, *what: str) -> str:
        return self.connection.kubectl("get", *what, f"--output=jsonpath={path}")


@pytest.mark.parametrize("values", COMBINATIONS, ids=lambda path: path.stem.removesuffix("-values"))
def test_supported_combination_installs_with_the_rights_that_it_needs_and_no_more(helm: Helm, values: Path) -> None:
    given = YAML(typ="safe").load(values.read_text()) or {}
    if not given.get("crds", {}).get("enabled", True):
        helm.connection.kubectl("create", *(f"--filename={path}" for path in crd_files()))

    helm.upgrade(f"--values={values}")

    # The API server took every object, and admission took the pods: they only lack nodes.
    pods = ("pod", "--selector=app.kubernetes.io/name=kompress", f"--namespace={HOME}")
    helm.connection.kubectl("wait", *pods, "--for=create", "--timeout=60s")
    assert bool(helm.get("poddisruptionbudgets", f"--namespace={HOME}")) == (given.get("replicas", 1) > 1)
    assert bool(helm.get("podmonitors", f"--namespace={HOME}")) == ("metrics" in given)
    scope, cluster_role = given.get("watchNamespaces"), given.get("rbac", {}).get("clusterRole", True)
    for namespace in ("team-a", "team-b", "elsewhere", HOME):
        expected = NEEDED if not scope or namespace in scope else set()
        expected = expected | (OF_THE_CLUSTER if cluster_role else set()) | (LEASE if namespace == HOME else set())
        assert rights(helm, namespace) == expected
    if scope and not cluster_role:
        assert "kompress" not in helm.get("clusterroles,clusterrolebindings")


def test_operator_of_all_namespaces_runs_a_job_with_these_rights(helm: Helm, tmp_path: Path) -> None:
    """An operator with Roles only: `test_operator_rights.py`."""
    helm.upgrade()
    helm.wait_for_crds()
    with operating(helm.as_operator(tmp_path), HOME, tmp_path, watch_namespaces="") as operator:
        job = Job(helm.connection, "team-a")
        job.create()
        job.fail("preflight", 1, 69)
        job.succeed("preflight", 2)
        job.fail("adapt", 1, 78)
        job.succeed("report")
        job.kubectl("wait", "--for=condition=Failed", f"compressionjob/{job.name}", "--timeout=60s")
        assert "forbidden" not in operator.log.read_text()


def test_all_namespaces_without_a_cluster_role_is_refused(helm: Helm) -> None:
    with pytest.raises(ClusterError, match=r"rbac\.clusterRole=false needs watchNamespaces"):
        helm.upgrade("--set=rbac.clusterRole=false")


def test_mistyped_value_is_refused(helm: Helm) -> None:
    with pytest.raises(ClusterError, match="'replica' not allowed"):
        helm.upgrade("--set=replica=2")


def test_value_handed_down_by_a_parent_chart_is_accepted(helm: Helm) -> None:
    helm.upgrade("--set=global.team=ml", "--dry-run=server")


def test_upgrade_brings_the_crds_of_the_repository_and_keeps_the_jobs(helm: Helm, tmp_path: Path) -> None:
    helm.upgrade(chart=chart_of_last_year(tmp_path))
    assert "Age" not in columns(helm)
    helm.create_job()

    helm.upgrade()

    assert "Age" in columns(helm)
    assert helm.get("cmpj", "--namespace=team-a") == "compressionjob.kompress.io/mine\n"
    yaml = YAML(typ="safe")
    rendered = yaml.load_all(helm.connection.helm("get", "manifest", "kompress", f"--namespace={HOME}"))
    specs = {thing["metadata"]["name"]: thing["spec"] for thing in rendered if thing["kind"] == "CustomResourceDefinition"}
    assert specs == {crd["metadata"]["name"]: crd["spec"] for crd in map(yaml.load, crd_files())}


def test_uninstall_keeps_the_jobs_and_nothing_else_and_a_new_release_takes_over(helm: Helm) -> None:
    helm.upgrade()
    helm.create_job()

    helm.connection.helm("uninstall", "kompress", f"--namespace={HOME}", "--wait")

    assert left_behind(helm) == sorted(f"customresourcedefinition.apiextensions.k8s.io/{name}" for name in KINDS)
    assert helm.get("cmpj", "--namespace=team-a") == "compressionjob.kompress.io/mine\n"
    helm.upgrade()
    assert helm.get("cmpj", "--namespace=team-a") == "compressionjob.kompress.io/mine\n"


def test_uninstall_takes_the_crds_along_when_told(helm: Helm) -> None:
    helm.upgrade("--set=crds.keep=false")
    helm.wait_for_crds()
    helm.connection.helm("uninstall", "kompress", f"--namespace={HOME}", "--wait")
    assert left_behind(helm) == []


NEEDED = {
    *((verb, "compressionjobs.kompress.io") for verb in ("get", "list", "watch")),
    ("patch", "compressionjobs.kompress.io/status"),
    *((verb, "jobs.batch") for verb in ("get", "list", "watch", "create", "delete")),
    *((verb, "services") for verb in ("get", "create", "delete")),
    *((verb, "pods") for verb in ("list", "watch")),
    *((verb, "controllerrevisions.apps") for verb in ("get", "create")),
    ("create", "events.events.k8s.io"),
}
OF_THE_CLUSTER = {
    *((verb, "clustercompressionruntimes.kompress.io") for verb in ("get", "list", "watch")),
    ("create", "tokenreviews.authentication.k8s.io"),
}
LEASE = {(verb, "leases.coordination.k8s.io") for verb in ("get", "create", "update")}


def rights(helm: Helm, namespace: str) -> set[tuple[str, str]]:
    """Every right of the operator in a namespace, as the API server sees it: (verb, resource)."""
    rules = helm.connection.kubectl("auth", "can-i", "--list", "--no-headers", f"--as={OPERATOR}", f"--namespace={namespace}")
    found = set()
    for line in rules.splitlines():
        resource, *_ = line.split()
        verbs = line[line.rindex("[") + 1 : line.rindex("]")].split()
        if not resource.startswith(("selfsubject", "[")):  # what Kubernetes grants to every user
            found |= {(verb, resource) for verb in verbs}
    return found


def crd_files() -> list[Path]:
    return sorted((REPOSITORY / "crds").glob("*.yaml"))


def columns(helm: Helm) -> str:
    return helm.jsonpath("{.spec.versions[0].additionalPrinterColumns[*].name}", "crd", "compressionjobs.kompress.io")


def left_behind(helm: Helm) -> list[str]:
    """What still carries the release's label, of every kind."""
    kinds = helm.connection.kubectl("api-resources", "--verbs=list,delete", "--output=name").split()
    kinds = [kind for kind in kinds if not kind.startswith(("events", "pods.", "componentstatuses"))]
    selector = "--selector=app.kubernetes.io/instance=kompress"
    return sorted(helm.get(",".join(kinds), "--all-namespaces", selector).split())


def chart_of_last_year(folder: Path) -> Path:
    """The chart before a column was added to the CRD."""
    chart = folder / "kompress"
    shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("files"))
    (chart / "files").mkdir()
    yaml = YAML(typ="safe")
    for path in crd_files():
        crd: dict[str, Any] = yaml.load(path.read_text())
        version = crd["spec"]["versions"][0]
        version["additionalPrinterColumns"] = [column for column in version["additionalPrinterColumns"] if column["name"] != "Age"]
        with (chart / "files" / path.name).open("w") as file:
            YAML(typ="safe", pure=True).dump(crd, file)
    return chart
