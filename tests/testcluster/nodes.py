"""The host's side of real nodes: bridge, routes, cgroups, and the namespaces in which `machine.py` runs.

A node is one process. When it is killed the kernel ends its pid namespace: daemons, shims and pods die at once, mounts and interfaces
go with their namespaces. So there is nothing to hunt for afterwards, and `power_off` is an honest power cut.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from testcluster.api import Api
from testcluster.places import BRIDGE, CLUSTERS, HOST_IP, MAX_NODES, SERVICES
from testcluster.processes import ClusterError, Processes
from testcluster.settings import Node, Settings

CGROUPS = Path("/sys/fs/cgroup")
KUBELET_SYSCTLS = (  # what kubelets change for the whole machine; put back by `remove_all`
    *("vm.overcommit_memory", "vm.panic_on_oom", "kernel.panic", "kernel.panic_on_oops"),
    *("kernel.keys.root_maxkeys", "kernel.keys.root_maxbytes"),
)
NAMESPACES = ("--net", "--pid", "--mount", "--uts")


def create_bridge(folder: Path) -> None:
    """The network between host and nodes, once."""
    if Path("/sys/class/net", BRIDGE).exists():
        return
    (folder / "sysctl.json").write_text(json.dumps({name: _sysctl(name).read_text().strip() for name in KUBELET_SYSCTLS}))
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("addr", "add", f"{HOST_IP}/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    for node in map(Node, range(1, MAX_NODES + 1)):
        _ip("route", "add", node.pods, "via", node.ip)
    _ip("route", "add", SERVICES, "via", Node(1).ip)  # kube-proxy of node1 translates ClusterIPs for the host


def start(node: Node, folder: Path, processes: Processes) -> None:
    """Powers a node on unless it runs; see `wait_ready`."""
    if processes.pid_of(node.name):
        return
    (folder / node.name).mkdir(exist_ok=True)
    for controller in _controllers():
        for group in (controller / node.cgroup, controller / node.cgroup / "system"):
            group.mkdir(exist_ok=True)
            if controller.name == "cpuset":  # a new cpuset is empty, level by level
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (group / file).write_text((controller / file).read_text())

    def enter_cgroups() -> None:
        for controller in _controllers():
            (controller / node.cgroup / "system/cgroup.procs").write_text("0")

    processes.start(
        *(node.name, "unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc"),
        *(sys.executable, "-m", "testcluster.machine", folder, node.index),
        environment={"PYTHONPATH": str(Path(__file__).parents[1])},
        prepare=enter_cgroups,
    )
    processes.wait(lambda: first_process(node, processes), f"{node.name} to start", 10, alive=node.name)
    _ip("link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", first_process(node, processes))
    _ip("link", "set", node.link, "master", BRIDGE, "up")


def first_process(node: Node, processes: Processes) -> int | None:
    """The host's pid of the node's PID 1, None while it is off."""
    parent = processes.pid_of(node.name)
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split() if parent else []
    return int(children[0]) if children else None


def wait_ready(node: Node, settings: Settings, processes: Processes, api: Api) -> None:
    processes.wait(lambda: api.node_ready(node.name), f"{node.name} to be Ready", 120, alive=node.name)
    if settings.gpus:
        api.set_gpus(node.name, settings.gpus)


def run_on(node: Node, processes: Processes, *command: object) -> list[str]:
    """The command line that runs a command inside a node, as ssh would."""
    pid = first_process(node, processes)
    if not pid:
        raise ClusterError(f"{node.name} does not run; `start-node {node.index}` starts it")
    return ["nsenter", f"--target={pid}", *NAMESPACES, "--", *map(str, command)]


def power_off(node: Node, processes: Processes) -> None:
    """Ends everything on the node and removes its cgroups: at its next start the kubelet would spend 3 s on each dead one."""
    _freeze(node, False)
    processes.kill(node.name)
    for pid in members(node):  # normally none: the kernel ended them with the namespace
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    processes.wait(lambda: not any(members(node)), f"{node.name} to be gone", 20)
    if Path("/sys/class/net", node.link).exists():
        # A network namespace outlives its processes while connections are still being closed; its interface must not.
        subprocess.run(["ip", "link", "delete", node.link], capture_output=True, check=False)
    for top in CGROUPS.glob(f"*/{node.cgroup}"):
        for group, _, _ in os.walk(top, topdown=False):
            Path(group).rmdir()


def partition(node: Node) -> None:
    """Cuts the node's network; what is on it runs on, unreachable."""
    _ip("link", "set", node.link, "down")


def freeze(node: Node) -> None:
    """Stops the node's time: nothing on it runs, nothing ends."""
    _freeze(node, True)


def reconnect(node: Node) -> None:
    """Undoes `partition` and `freeze`."""
    _freeze(node, False)
    _ip("link", "set", node.link, "up")


def members(node: Node) -> Iterator[int]:
    """The host's pids of everything that runs on the node, pods included."""
    for path in (CGROUPS / "pids" / node.cgroup).glob("**/cgroup.procs"):
        with contextlib.suppress(FileNotFoundError):
            yield from map(int, path.read_text().split())


def remove_all(folder: Path, processes: Processes) -> None:
    """Ends all nodes. Interfaces and mounts go with the namespaces; bridge, cgroups and sysctls are put back here."""
    for node in map(Node, range(1, MAX_NODES + 1)):
        power_off(node, processes)
    if Path("/sys/class/net", BRIDGE).exists():
        _ip("link", "delete", BRIDGE)
    saved = folder / "sysctl.json"
    for name, value in (json.loads(saved.read_text()) if saved.exists() else {}).items():
        _sysctl(name).write_text(value)


def remains() -> Iterator[str]:
    """What is left on the host of any real node: interfaces, cgroups, mounts of clusters. Nothing, after `remove_all`."""
    yield from (f"interface {path.name}" for path in Path("/sys/class/net").glob("kompress*"))
    yield from (f"cgroup {path}" for path in CGROUPS.glob("*/kompress-node*"))
    mounts = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    yield from (f"mount {path}" for path in mounts if Path(path).is_relative_to(CLUSTERS))


def _ip(*arguments: object) -> None:
    subprocess.run(["ip", *map(str, arguments)], check=True)


def _sysctl(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))


def _controllers() -> list[Path]:
    found = [path for path in CGROUPS.iterdir() if (path / "cgroup.procs").exists() and not path.is_symlink() and path.name != "unified"]
    if not found:
        raise ClusterError(f"real nodes need cgroup v1 controllers under {CGROUPS}, and there are none; clusters without nodes work")
    return found


def _freeze(node: Node, frozen: bool) -> None:
    state = CGROUPS / "freezer" / node.cgroup / "freezer.state"
    if state.exists():  # not while the node is off
        state.write_text("FROZEN" if frozen else "THAWED")
