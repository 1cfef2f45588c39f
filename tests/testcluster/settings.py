"""What one cluster was asked to be, kept in its folder while it runs; and the names and addresses that follow from it."""

import dataclasses
import json
import random
import socket
import sys
from collections.abc import Collection
from pathlib import Path

from testcluster.places import BIN, HOST_IP, REPOSITORY
from testcluster.processes import ClusterError, locked

REAL_NODE_PORTS = {"api": 6443, "s3": 9000, "mlflow": 5000}
"""On `HOST_IP`, which is the cluster's own: manifests may name them."""
POD_TMP = Path("/tmp")
"""Where pods of stages mount a folder of their own."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """One cluster. Without nodes it has an API, controllers and a scheduler on 127.0.0.1, and needs no root."""

    name: str
    control_plane: bool = True
    """Without it only the servers run: S3, MLflow."""
    nodes: int = 0
    gpus: int = 0
    """`nvidia.com/gpu` that every node claims to have."""
    grace: int = 40
    """Seconds after which a silent node is NotReady; after as many again its pods are deleted."""
    s3: bool = False
    mlflow: bool = False
    host_mounts: tuple[str, ...] = ()
    """Paths of the host, read-only at the same path in pods with `runtimeClassName: host`."""
    owner: str = ""
    """Identity of the process that this cluster shall not outlive; empty: it stays until `down`."""
    ports: dict[str, int] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def ip(self) -> str:
        """Where the API server, S3 and MLflow listen."""
        return HOST_IP if self.nodes else "127.0.0.1"

    @property
    def down_command(self) -> str:
        """What a person types to take it down."""
        tests = Path(__file__).resolve().parents[1]
        return f"KOMPRESS_TESTCLUSTER={BIN.parent} PYTHONPATH={tests} python3 -m testcluster --name {self.name} down"

    def save(self, folder: Path) -> None:
        """Chooses the ports and writes the settings. Ports of another cluster are not free, also while nobody listens there yet."""
        with locked(folder.parent):
            others = [other for path in folder.parent.iterdir() if (other := Settings.load(path))]
            given = {port for other in others for port in other.ports.values()}
            free = free_ports(("api", "etcd", "etcd-peer", "s3", "mlflow"), given)
            ports = {**free, **(REAL_NODE_PORTS if self.nodes else {})}
            folder.mkdir(parents=True, exist_ok=True)
            written = folder / "settings.json.new"
            written.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(self, ports=ports))))
            written.replace(folder / "settings.json")  # a session that sweeps never reads half of it

    @classmethod
    def load(cls, folder: Path) -> "Settings | None":
        """The settings of the cluster that runs in `folder`, None where none does."""
        try:
            fields = json.loads((folder / "settings.json").read_text())
        except FileNotFoundError:
            return None
        return cls(**{**fields, "host_mounts": tuple(fields["host_mounts"])})


@dataclasses.dataclass(frozen=True)
class Node:
    """A real node: a process that holds net, pid, mount and uts namespaces of its own. Counted from 1."""

    index: int

    @property
    def name(self) -> str:
        return f"node{self.index}"

    @property
    def ip(self) -> str:
        return f"10.250.0.{10 + self.index}"

    @property
    def pods(self) -> str:
        return f"10.244.{self.index}.0/24"

    @property
    def link(self) -> str:
        """Its end on the host's bridge."""
        return f"kompress{self.index}"

    @property
    def cgroup(self) -> str:
        return f"kompress-{self.name}"


def free_ports(names: tuple[str, ...], given: Collection[int] = ()) -> dict[str, int]:
    """Ports of 127.0.0.1 that nobody listens on and that are not `given`, below the range from which the kernel takes ports for clients."""
    chosen: dict[str, int] = {}
    for port in random.sample([port for port in range(20_000, 32_000) if port not in given], 500):
        if len(chosen) == len(names):
            return chosen
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        chosen[names[len(chosen)]] = port
    raise ClusterError("no free ports between 20000 and 32000 on 127.0.0.1")


def host_mounts() -> tuple[str, ...]:
    """What a pod needs to run this Python environment and this repository's code: each at its own path.

    A Python with a shared library finds it by absolute path: moved, it may silently run the system's.

    Raises:
        ClusterError: A pod would not see it, behind the /tmp of its own.
    """
    prefixes = ["/usr", sys.base_prefix, sys.prefix, str(REPOSITORY)]
    paths = [Path(prefix).resolve() for prefix in prefixes]
    if hidden := [path for path in paths if path.is_relative_to(POD_TMP)]:
        raise ClusterError(f"{hidden[0]} lies below {POD_TMP}, and every pod has a {POD_TMP} of its own: clone the repository elsewhere")
    return tuple(str(path) for i, path in enumerate(paths) if not any(path.is_relative_to(other) for other in paths[:i] + paths[i + 1 :]))
