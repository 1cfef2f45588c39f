"""The documentation is executed: every command and every manifest of every page, in the order of the page, by the shell that a reader has.

One `make demo` stands for all of it: it is the README's own command, and the cluster that the pages speak of. It trains
examples/digits.yaml from nothing. `make run` then finds a copy of what the demo's stages made in its own output, so that the epochs are
paid for once: that a laptop computes the same keys as a cluster, and takes its artifacts for its own, is part of what is shown.

A page runs in a folder that looks like a clone, `make` in the clone itself. No command is left out; the few that end in another way
than by themselves are in `HOW`.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from ruamel.yaml import YAML

import installation
from docs.pages import Step, pages, steps, unseen
from testcluster import claim, nodes
from testcluster.cluster import Cluster
from testcluster.places import CLUSTERS, REPOSITORY

pytestmark = pytest.mark.timeout(5400)  # the first test pays for `make demo`
TRAINED = ("adapt", "student", "slim", "ship")
YAML_READER = YAML(typ="safe", pure=True)
GUARD_SECONDS = 600
"""After which a command that should have ended by itself is ended, so that nothing runs on behind the tests."""


class Desk:
    """Where a reader types: a folder with the clone's examples and chart, and what the demo says is needed to reach its cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "kompress-runs"
        for name in ("charts", "examples"):
            (folder / name).symlink_to(REPOSITORY / name)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "KUBECONFIG", "MFLAGS"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**inherited, "PATH": path, "KOMPRESS_HOME": str(self.home), "REGISTRY": installation.REGISTRY}
        self.already: set[str] = set()
        """Commands of the running text that were run: pages repeat them."""

    def reaches(self, cluster: Cluster) -> None:
        """As after the `eval` line that the demo prints, with a kubeconfig of the reader's own to change."""
        kubeconfig = shutil.copy(cluster.kubeconfig, self.folder / "kubeconfig")
        path = f"{Path(sys.executable).parent}{os.pathsep}{cluster.environment['PATH']}"
        self.environment |= cluster.environment | {"KUBECONFIG": str(kubeconfig), "PATH": path}

    def started(self, command: str) -> "subprocess.Popen[str]":
        folder = REPOSITORY if command.startswith("make") else self.folder
        pipes: Mapping[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=self.environment, start_new_session=True, **pipes
        )

    def run(self, command: str, seconds: float = GUARD_SECONDS) -> tuple[int, str]:
        """Exit code, and all that was printed."""
        process = self.started(command)
        try:
            printed, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            printed = f"... ended after {seconds:.0f} s: {end(process)}"
        except BaseException:
            end(process)
            raise
        return process.returncode, printed

    def must_run(self, command: str, seconds: float = GUARD_SECONDS) -> str:
        code, printed = self.run(command, seconds)
        assert code == 0, f"`{command.strip()}` ended with {code}:\n{printed}"
        return printed


def end(process: "subprocess.Popen[str]") -> str:
    """Ends a command with all that it started; what it had printed."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        return process.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


class Demo:
    """What `make demo` has left up and printed."""

    def __init__(self, desk: Desk, printed: str) -> None:
        cluster = Cluster.load(CLUSTERS / "demo")
        assert cluster is not None, printed
        self.desk, self.printed, self.cluster = desk, printed, cluster
        desk.reaches(cluster)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def demo(desk: Desk) -> Iterator[Demo]:
    """`make demo`, and after the tests `make demo-down`, which must leave nothing. A demo of someone else's is not touched."""
    claim.refuse_if_taken()
    try:
        yield Demo(desk, desk.must_run("make demo", seconds=3600))
    finally:
        desk.must_run("make demo-down")
        assert claim.holder() is None
        assert not (CLUSTERS / "demo").exists()
        assert list(nodes.remains()) == []


def test_the_demo_ends_with_a_model_that_met_its_goals_tracked_and_kept(demo: Demo) -> None:
    shown = unseen(
        "applied examples/runtime.yaml and examples/digits.yaml\nComplete\n"
        "NAME … PHASE … STAGE … ATTEMPT … PROGRESS … ACCURACY … SMALLER … FASTER … AGE\ndigits … Complete\n"
        "S3 holds … objects\nTo take it down:  make demo-down",
        demo.printed,
    )
    assert shown == [], demo.printed
    job = YAML_READER.load(demo.desk.must_run("kubectl get cmpj digits --namespace default --output yaml"))
    stages = {entry["name"]: entry for entry in job["status"]["stages"]}
    assert [stages[name]["result"].get("reused", False) for name in TRAINED] == [False] * 4, "trained here, in its pods"
    assert [(goal["metric"], goal["met"]) for goal in job["status"]["goals"]] == [
        ("accuracy", True),
        ("latencyP50Ms", True),
        ("modelSizeBytes", True),
    ]
    runs = mlflow.MlflowClient(demo.cluster.mlflow.uri)
    experiment = runs.get_experiment_by_name("digits")
    found = runs.search_runs([experiment.experiment_id])
    assert {run.info.status for run in found} == {"FINISHED"}
    tracked = {stages[name]["result"]["mlflowRunId"] for name in TRAINED}
    assert len(tracked) == 4 and tracked <= {run.info.run_id for run in found}


def test_the_demos_hints_to_look_around_hold(demo: Demo) -> None:
    hints = demo.printed.partition("To look around")[2].partition("To take it down")[0].splitlines()[2:]
    commands = [re.split(r"\s{2,}", line.strip())[0] for line in hints if line.strip()]
    assert len(commands) == 8, commands
    for command in commands:
        if command.startswith("http"):
            with urllib.request.urlopen(command, timeout=30) as reply:
                assert reply.status == 200
        elif command.startswith("eval"):  # its paths are relative to the clone
            assert f"KUBECONFIG={demo.cluster.kubeconfig}" in demo.desk.must_run(f"cd {REPOSITORY}; {command}; export | tr -d '\"'")
        else:
            assert demo.desk.must_run(command) != ""


def test_the_readmes_manifest_is_the_example(demo: Demo) -> None:
    """So that it is run: by `make demo` and by `make run`."""
    shown = [step for step in steps("README.md", (REPOSITORY / "README.md").read_text()) if step.kind == "yaml"]
    assert [YAML_READER.load(step.text) for step in shown] == [YAML_READER.load((REPOSITORY / "examples/digits.yaml").read_text())]


def test_make_run_takes_what_the_cluster_made_and_ends_with_the_table(demo: Demo) -> None:
    """The same keys on both sides: the epochs of the demo are not done again. And the line that opens MLflow does."""
    copy_artifacts(demo, demo.desk.home / "digits" / "output")
    printed = demo.desk.must_run("make run")
    shown = unseen(
        "stage … state … accuracy … recall … parameters … MACs … bytes … p50 ms … p99 ms\n"
        "source\nadapt … Reused\nstudent … Reused\nslim … Reused\nship … Reused\n"
        "accuracy … met\nlatencyP50Ms … met\nmodelSizeBytes … met\nmodel: file://\nreport: file://\nmetrics: mlflow ui",
        printed,
    )
    assert shown == [], printed
    places = dict(line.split(": ", 1) for line in printed.splitlines() if line.startswith(("model", "report", "metrics")))
    assert Path(places["report"].removeprefix("file://")).read_text().startswith("<!doctype html>")
    with serving(demo.desk, places["metrics"]) as uri:
        assert mlflow.MlflowClient(uri).get_experiment_by_name("digits") is not None


def copy_artifacts(demo: Demo, output: Path) -> None:
    """The finished stages of the demo's bucket, as files: as anyone would copy a bucket."""
    client = demo.cluster.s3.client()
    prefix = "artifacts/"  # of the output in examples/runtime.yaml
    listing = client.get_paginator("list_objects_v2").paginate(Bucket=installation.BUCKET, Prefix=f"{prefix}artifacts/")
    for entry in (entry for page in listing for entry in page.get("Contents", ())):
        path = output / entry["Key"].removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(installation.BUCKET, entry["Key"], str(path))


class serving:  # noqa: N801 - read as a statement
    """The address of a server, from when it answers until it is ended."""

    def __init__(self, desk: Desk, command: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        desk.environment["MLFLOW_PORT"] = str(self.port)  # 5000, its default, may be somebody's
        self.process = desk.started(command)

    def __enter__(self) -> str:
        uri, until = f"http://127.0.0.1:{self.port}", time.monotonic() + GUARD_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            try:
                urllib.request.urlopen(uri, timeout=5).close()
                return uri
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"it does not answer: {end(self.process)}")

    def __exit__(self, *_: object) -> None:
        end(self.process)


@pytest.mark.parametrize("page", pages(REPOSITORY))
def test_a_page_is_true(demo: Demo, page: str) -> None:
    for step in steps(page, (REPOSITORY / page).read_text()):
        if step.kind == "yaml":
            check_manifest(demo.desk, step)
        else:
            check_command(demo, step)


def check_manifest(desk: Desk, step: Step) -> None:
    """Every manifest that is shown is one that kubectl and kompress take; one that names its file is written there."""
    path = desk.folder / (step.file or "shown.yaml")
    path.write_text(step.text)
    desk.must_run(f"kompress validate {path.name} && kubectl create --dry-run=server --filename {path.name} --namespace kube-public")


def check_command(demo: Demo, step: Step) -> None:
    if step.kind == "inline" and step.text in demo.desk.already:
        return
    demo.desk.already.add(step.text)
    if step.text in HOW:
        HOW[step.text](demo)
        return
    code, printed = demo.desk.run(step.text)
    assert code == 0, f"{step}: `{step.text.strip()}` ended with {code}:\n{printed}"
    missing = unseen(step.shows, printed)
    assert missing == [], f"{step}: `{step.text.strip()}` does not show {missing[0]!r} in its place:\n{printed}"


def is_refused_while_the_demo_is_up(demo: Demo) -> None:
    """Who tests while the demo is up must learn it now, with the cure, and not after minutes of other tests."""
    code, printed = demo.desk.run("make test", seconds=60)
    assert code != 0
    assert "a cluster with real nodes is already up on this machine: `demo`" in printed
    assert re.search(r"Take it down first: .* --name demo down", printed)
    assert "ruff" not in printed and "pytest" not in printed, printed


def is_taken_down_in_the_end(_: Demo) -> None:
    """By the fixture `demo`."""


def is_part_of_make_test(targets: str) -> Callable[[Demo], None]:
    """`make test`, which runs these tests, has run it before."""

    def check(demo: Demo) -> None:
        part, whole = (demo.desk.must_run(f"make --always-make --dry-run {names}").splitlines() for names in (targets, "test"))
        assert part and set(part) <= set(whole)

    return check


def measures(demo: Demo) -> None:
    """It takes tens of minutes and a quiet machine: it is let go on until it has its first pair of samples."""
    process = demo.desk.started("make perf")
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("  pair 1/"):
            break
    end(process)
    assert "  pair 1/" in printed, printed


def measures_parts(demo: Demo) -> None:
    """It takes hours, or a GPU: what it would run is looked at. The parts are those of the suite, see tests/unit/perf/test_peers.py."""
    suites = {"make perf-engine": "engine", 'make perf-engine PARTS="stalls speed"': "engine.stalls engine.speed", "make perf-gpu": "gpu"}
    for command, wanted in suites.items():
        said = demo.desk.must_run(command.replace("make", "make --dry-run", 1))
        assert any(line.endswith(f"-m perf {wanted}") for line in said.splitlines()), said


HOW: dict[str, Callable[[Demo], None]] = {
    "make test": is_refused_while_the_demo_is_up,
    "make lint": is_part_of_make_test("lint"),
    "make lint test-unit": is_part_of_make_test("lint test-unit"),
    "make perf": measures,
    "make perf-engine": measures_parts,
    'make perf-engine PARTS="stalls speed"': measures_parts,
    "make perf-gpu": measures_parts,
    "make demo-down": is_taken_down_in_the_end,
}


def test_nothing_stands_in_the_table_that_no_page_says() -> None:
    said = {step.text for page in pages(REPOSITORY) for step in steps(page, (REPOSITORY / page).read_text())}
    assert set(HOW) - said == set()
