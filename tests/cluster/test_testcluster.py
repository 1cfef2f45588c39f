"""The test cluster itself, without real nodes: what other tests build on, and that it never outlives its session."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from testcluster import settings
from testcluster.cluster import Cluster, Connection, kept_logs, running, sweep
from testcluster.processes import ClusterError, identity
from testcluster.servers import S3, Mlflow
from testcluster.settings import Settings


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that belong to a cluster's folder, whoever started them."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (path / "environ").read_bytes() and identity(int(path.name)):
                found.append((path / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_pods_of_a_job_are_made_and_wait_for_a_node(control_plane: Connection, namespace: str) -> None:
    control_plane.kubectl("create", "job", "waits", "--image=kompress.test/none:1", f"--namespace={namespace}")
    control_plane.kubectl("wait", "job/waits", "--for=jsonpath={.status.active}=1", "--timeout=60s", f"--namespace={namespace}")
    control_plane.kubectl(
        *("wait", "pod", "--selector=job-name=waits", "--for=condition=PodScheduled=false", "--timeout=60s", f"--namespace={namespace}")
    )


def test_s3_refuses_a_second_conditional_put(s3: S3) -> None:
    client, bucket = s3.client(), s3.new_bucket()
    client.put_object(Bucket=bucket, Key="folder/manifest.json", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as refusal:
        client.put_object(Bucket=bucket, Key="folder/manifest.json", Body=b"second", IfNoneMatch="*")
    assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert client.get_object(Bucket=bucket, Key="folder/manifest.json")["Body"].read() == b"first"


def test_mlflow_keeps_runs_and_serves_artifacts(mlflow_server: Mlflow, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_server.uri)
    run = client.create_run(client.create_experiment("testcluster"))
    client.log_metric(run.info.run_id, "accuracy", 0.5)
    client.log_text(run.info.run_id, "small and fast", "note.txt")
    assert client.get_run(run.info.run_id).data.metrics == {"accuracy": 0.5}
    assert Path(client.download_artifacts(run.info.run_id, "note.txt", str(tmp_path))).read_text() == "small and fast"


def test_down_leaves_no_process_no_folder_but_the_logs() -> None:
    settings = Settings(name=f"down-{os.getpid()}", control_plane=False, s3=True)
    with running(settings) as cluster:
        # As MLflow's command line does: a child that outlives it, in its session.
        cluster.processes.start("parent", "sh", "-c", "sleep 1000 & exec sleep 1001")
        cluster.processes.wait(lambda: len(processes_of(cluster.folder)) == 3, "S3 server, parent and child", 10)
        cluster.processes.kill("parent")
        assert len(processes_of(cluster.folder)) == 1
    assert processes_of(cluster.folder) == []
    assert not cluster.folder.exists()
    assert (kept_logs(settings.name) / "s3.log").exists()


def test_killed_session_leaves_no_process() -> None:
    """A test run that dies by `kill -9` (or out of memory) must not leave servers on the developer's machine."""
    name = f"killed-{os.getpid()}"
    session = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, time; from testcluster.cluster import Cluster; from testcluster.processes import identity\n"
            "from testcluster.settings import Settings\n"
            f"cluster = Cluster.up(Settings(name={name!r}, control_plane=False, s3=True, owner=identity(os.getpid())))\n"
            "print(cluster.folder, flush=True)\n"
            "input()",
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert session.stdout
    folder = Path(session.stdout.readline().strip())
    assert processes_of(folder)
    session.send_signal(signal.SIGKILL)
    session.wait()
    sweep()
    assert processes_of(folder) == []
    assert not folder.exists()


def test_another_cluster_of_the_same_name_is_refused_with_the_way_out() -> None:
    settings = Settings(name=f"same-{os.getpid()}", control_plane=False, s3=True)
    with running(settings), pytest.raises(ClusterError, match=r"other settings.*--name same-\d+ down"):
        Cluster.up(Settings(name=settings.name, control_plane=False, mlflow=True))


def test_a_clone_that_pods_would_not_see_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every pod of a stage says, minutes later, that there is no python."""
    monkeypatch.setattr(settings, "REPOSITORY", Path("/tmp/clone"))
    with pytest.raises(ClusterError, match="/tmp/clone lies below /tmp"):
        settings.host_mounts()
