"""One cluster from `up` to `down`, and what a test does with it."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from testcluster import archives, claim, control, nodes, pki, servers
from testcluster.api import Api
from testcluster.places import BIN, CLUSTERS, LOGS
from testcluster.processes import ClusterError, Processes, is_alive, locked
from testcluster.servers import S3, Mlflow
from testcluster.settings import REAL_NODE_PORTS, Node, Settings


class Connection:
    """A cluster that can be reached, whoever made it."""

    def __init__(self, kubeconfig: Path, s3: S3 | None, mlflow: Mlflow | None) -> None:
        self.kubeconfig = kubeconfig
        self._s3 = s3
        self._mlflow = mlflow

    @property
    def s3(self) -> S3:
        if self._s3 is None:
            raise ClusterError("this cluster has no S3 server: `up --s3`, or AWS_ENDPOINT_URL and its keys beside KUBECONFIG")
        return self._s3

    @property
    def mlflow(self) -> Mlflow:
        if self._mlflow is None:
            raise ClusterError("this cluster has no MLflow server: `up --mlflow`, or MLFLOW_TRACKING_URI beside KUBECONFIG")
        return self._mlflow

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to use the cluster: kubeconfig, the programs on PATH, S3, MLflow."""
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            **(self._s3.environment if self._s3 else {}),
            **(self._mlflow.environment if self._mlflow else {}),
        }

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs kubectl and returns what it printed.

        Raises:
            ClusterError: it failed; the text holds its command line and its stderr.
        """
        return self.run("kubectl", *arguments, stdin=stdin)

    def helm(self, *arguments: str) -> str:
        """Runs helm likewise."""
        return self.run("helm", *arguments)

    def run(self, *command: str, stdin: str | None = None) -> str:
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout


class Cluster(Connection):
    """A cluster of this machine, described by its `Settings`."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.processes = Processes(folder, die_with_parent=bool(settings.owner))
        self.api = Api(pki.kubeconfig(folder))
        self.nodes = [Node(index) for index in range(1, settings.nodes + 1)]
        ip, ports = settings.ip, settings.ports
        super().__init__(
            pki.kubeconfig(folder),
            S3(f"http://{ip}:{ports['s3']}") if settings.s3 else None,
            Mlflow(f"http://{ip}:{ports['mlflow']}") if settings.mlflow else None,
        )

    @classmethod
    def load(cls, folder: Path) -> "Cluster | None":
        """The cluster that runs in `folder`, None where none does."""
        settings = Settings.load(folder)
        return cls(folder, settings) if settings else None

    @classmethod
    def up(cls, wanted: Settings, report: Callable[[str], None] = lambda _: None) -> "Cluster":
        """Starts a cluster, or what is missing of it. One that fails to start leaves nothing but logs.

        Raises:
            ClusterError: the machine can't, another cluster has its real nodes, or one of this name has other settings.
        """
        folder = CLUSTERS / wanted.name
        current = Settings.load(folder)
        if current not in (None, wanted):
            raise ClusterError(f"`{wanted.name}` runs with other settings; take it down first: {wanted.down_command}")
        if not (BIN / "kube-apiserver").exists():
            raise ClusterError(f"no programs in {BIN}: run `python -m testcluster install` (or `make testcluster`) first")
        if wanted.nodes:
            if os.geteuid():
                raise ClusterError("real nodes need root; a cluster without nodes does not")
            if (other := claim.holder()) and other.is_stale:
                take_down(Path(other.folder))
            claim.take(folder, wanted)
        if not current:
            shutil.rmtree(folder, ignore_errors=True)
            wanted.save(folder)
        cluster = cls.load(folder)
        assert cluster
        try:
            if cluster.nodes and not current:
                nodes.create_bridge(folder)
                servers.check_free(cluster.settings.ip, REAL_NODE_PORTS.values())
            cluster._start(report)
        except BaseException:
            if not current:
                cluster.down()
            raise
        return cluster

    def _start(self, report: Callable[[str], None]) -> None:
        ip, ports = self.settings.ip, self.settings.ports
        if self.nodes:
            archives.write_defaults(self.folder)
        if self.settings.mlflow:
            servers.start_mlflow(self.folder, self.processes, ip, ports["mlflow"])
        if self.settings.s3:
            servers.start_s3(self.folder, self.processes, ip, ports["s3"])
        if self.settings.control_plane:
            control.start(self.folder, self.settings, self.processes)
            report("control plane works")
        if self.nodes:
            control.start_dns(self.folder, self.processes)
            control.add_host_runtime(self.folder)
            for node in self.nodes:
                nodes.start(node, self.folder, self.processes)
            for node in self.nodes:
                nodes.wait_ready(node, self.settings, self.processes, self.api)
            report(f"{len(self.nodes)} node(s) Ready")

    @property
    def mlflow(self) -> Mlflow:
        """Waits until the server answers, which `up` does not: importing it takes longer than all else."""
        if self._mlflow:
            servers.wait_for_mlflow(self.processes, self.settings.ip, self.settings.ports["mlflow"])
        return super().mlflow

    def down(self) -> None:
        """Ends the cluster and removes every trace of it but its logs."""
        take_down(self.folder)

    def load_image(self, archive: Path) -> None:
        """Imports an OCI or docker image archive into every node; its layers are unpacked where the first pod needs them."""
        command = (BIN / "ctr", "-n", "k8s.io", "images", "import", "--local", "--no-unpack", archive.absolute())
        with ThreadPoolExecutor(len(self.nodes) or 1) as pool:
            for _ in pool.map(lambda node: self.on_node(node.index, *command), self.nodes):
                pass

    def stop_node(self, index: int, how: Literal["off", "partition", "freeze"] = "off") -> None:
        """Makes a node fail: it loses power, its network, or its time."""
        node = Node(index)
        if how == "off":
            nodes.power_off(node, self.processes)
        elif how == "partition":
            nodes.partition(node)
        else:
            nodes.freeze(node)

    def start_node(self, index: int) -> None:
        """Undoes every way of `stop_node`, and returns when the node is Ready.

        Within the grace after the failure that is at once: the API has not noticed yet.
        """
        node = Node(index)
        nodes.start(node, self.folder, self.processes)
        nodes.reconnect(node)
        nodes.wait_ready(node, self.settings, self.processes, self.api)

    def on_node(self, index: int, *command: object) -> str:
        """Runs a command inside a node, as ssh would, and returns what it printed."""
        return self.run(*nodes.run_on(Node(index), self.processes, *command))


def take_down(folder: Path) -> None:
    """Ends whatever runs for the cluster in `folder`, however little of it is left. Nothing there is no error.

    Raises:
        ClusterError: something is left all the same, with what it is; or it has real nodes and this is not root.
    """
    processes = Processes(folder)
    has_nodes = (held := claim.holder()) is not None and held.folder == str(folder)
    if has_nodes and os.geteuid():
        raise ClusterError(f"`{folder.name}` has real nodes: taking it down needs root, as starting it did")
    processes.kill(*(name for name in processes.names() if not name.startswith("node")))
    if has_nodes:
        nodes.remove_all(folder, processes)
    kept = kept_logs(folder.name)
    with locked(LOGS):
        if processes.log.exists():  # two sessions may sweep the same folder
            shutil.rmtree(kept, ignore_errors=True)
            shutil.move(processes.log, kept)
    shutil.rmtree(folder, ignore_errors=True)
    claim.release(folder)
    if left := [*(f"process {pid}" for pid in processes.marked()), *(nodes.remains() if has_nodes else ())]:
        raise ClusterError(f"`{folder.name}` is down, but this is left of it: {', '.join(left)}")


def kept_logs(name: str) -> Path:
    """Where the logs of a cluster lie after `down`; clusters of sessions, which differ in their last number, share a place."""
    return LOGS / name.rstrip("-0123456789")


def sweep() -> None:
    """Takes down the clusters whose owner ended without doing it."""
    for folder in CLUSTERS.iterdir() if CLUSTERS.exists() else ():
        settings = Settings.load(folder)
        if settings and settings.owner and not is_alive(settings.owner):
            take_down(folder)


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Cluster]:
    """A cluster for as long as the block lasts."""
    cluster = Cluster.up(settings)
    try:
        yield cluster
    finally:
        cluster.down()
