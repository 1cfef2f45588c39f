"""`kompress` against a real API server: what a user types, and the server's own words where it refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import manifests
from cluster.operating import install_crds
from testcluster.cluster import Connection

Transcript = tuple[int, str, str]
Kompress = Callable[..., Transcript]


@pytest.fixture(scope="module")
def api(control_plane: Connection) -> Connection:
    install_crds(control_plane)
    return control_plane


@pytest.fixture
def kompress(api: Connection, namespace: str, tmp_path: Path) -> Kompress:
    (tmp_path / "good.yaml").write_text(json.dumps(manifests.good()))

    def call(*arguments: str) -> Transcript:
        command = [str(Path(sys.executable).with_name("kompress")), *arguments]
        if arguments[0] != "validate":
            command.append(f"--namespace={namespace}")
        done = subprocess.run(command, env={**os.environ, **api.environment}, capture_output=True, text=True, check=False, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    return call


def job(api: Connection, namespace: str) -> dict[str, Any]:
    return json.loads(api.kubectl("get", "cmpj", "good", f"--namespace={namespace}", "--output=json"))  # type: ignore[no-any-return]


def test_a_job_is_submitted_suspended_resumed_and_deleted(api: Connection, namespace: str, kompress: Kompress) -> None:
    assert kompress("submit", "good.yaml") == (0, "compressionjob.kompress.io/good applied\n", "")
    assert kompress("submit", "good.yaml") == (0, "compressionjob.kompress.io/good applied\n", ""), "applying again changes nothing"
    assert job(api, namespace)["metadata"]["generation"] == 1

    assert kompress("suspend", "good") == (0, "compressionjob.kompress.io/good suspended\n", "")
    assert job(api, namespace)["spec"]["suspend"] is True
    assert kompress("resume", "good") == (0, "compressionjob.kompress.io/good resumed\n", "")
    assert job(api, namespace)["spec"]["suspend"] is False

    assert kompress("delete", "good") == (0, "compressionjob.kompress.io/good deleted\n", "")
    code, out, err = kompress("get", "good")
    assert (code, out, err) == (1, "", 'error: compressionjobs.kompress.io "good" not found\n')


def test_jobs_are_listed_in_the_columns_of_kubectl(api: Connection, namespace: str, kompress: Kompress) -> None:
    kompress("submit", "good.yaml")
    code, out, err = kompress("get")
    header = api.kubectl("get", "cmpj", f"--namespace={namespace}").splitlines()[0].split()
    titles, _, row = (line.split() for line in out.strip().splitlines())
    assert (code, err, [title.upper() for title in titles], row[0]) == (0, "", header, "good")
    code, out, err = kompress("get", "--json")
    assert [entry["metadata"]["name"] for entry in json.loads(out)["items"]] == ["good"]


def test_a_status_is_described(api: Connection, namespace: str, kompress: Kompress) -> None:
    kompress("submit", "good.yaml")
    moment = "2026-01-01T00:00:00Z"
    attempt = {
        "attempt": 2,
        "startedAt": moment,
        "endedAt": moment,
        "outcome": "LossNotFinite",
        "rank": 1,
        "pod": "good-adapt-2-1",
        "node": "n1",
        "exitCode": 78,
        "message": "the loss became NaN at step 7",
    }
    status = {
        "phase": "Failed",
        "conditions": [{"type": "Failed", "status": "True", "reason": "StageFailed", "message": "why", "lastTransitionTime": moment}],
        "stages": [{"name": "adapt", "state": "Failed", "attempts": [attempt]}, {"name": "student", "state": "Skipped"}],
        "goals": [{"metric": "accuracy", "bound": ">= 0.9", "stage": "ship", "met": False}],
    }
    content = f"--patch={json.dumps({'status': status})}"
    api.kubectl(
        "patch",
        "cmpj",
        "good",
        f"--namespace={namespace}",
        "--subresource=status",
        "--type=merge",
        content,
    )
    code, out, err = kompress("describe", "good")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:2] == [f"{namespace}/good: Failed", f"Failed=True StageFailed since {moment}: why"]
    told = f"adapt 2 {moment} {moment} LossNotFinite rank 1, good-adapt-2-1, n1, exit 78 the loss became NaN at step 7"
    assert told in lines
    assert "accuracy ship >= 0.9 missed" in lines
    assert json.loads(kompress("describe", "good", "--json")[1])["status"]["phase"] == "Failed"


def test_a_change_that_is_not_allowed_is_told_in_the_servers_words(kompress: Kompress, tmp_path: Path) -> None:
    kompress("submit", "good.yaml")
    other = manifests.good()
    other["spec"]["seed"] = 7
    (tmp_path / "other.yaml").write_text(json.dumps(other))
    code, out, err = kompress("submit", "other.yaml")
    assert (code, out) == (2, "")
    assert "task, seed, model, dataset and stages are immutable" in err


def test_a_job_without_pods_has_no_logs(kompress: Kompress) -> None:
    code, out, err = kompress("logs", "good", "--stage", "adapt")
    assert (code, out) == (1, "")
    assert err.startswith("error: stage adapt of good has no pods\n\nhint: kompress describe good")


def test_no_cluster_is_said_in_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "absent"), "HOME": str(tmp_path)}
    command = [str(Path(sys.executable).with_name("kompress")), "get"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no cluster: ")
    assert done.stderr.endswith("hint: set KUBECONFIG, or use `kompress run` for this machine\n")
