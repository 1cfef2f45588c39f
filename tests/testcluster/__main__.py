"""The test cluster's command line:  PYTHONPATH=tests python -m testcluster COMMAND

`install` once, then `up`, `eval "$(python -m testcluster env)"`, and `down`. Clusters without nodes need no root and run side by side
under different names; the machine has one cluster with real nodes at a time.
"""

import argparse
import dataclasses
import os
import shlex
import sys
import time
from pathlib import Path

from testcluster import claim, nodes, packages, programs
from testcluster.cluster import Cluster, take_down
from testcluster.places import BIN, CLUSTERS, MAX_NODES
from testcluster.processes import ClusterError, memory_mib
from testcluster.settings import Node, Settings, host_mounts


def install(_: argparse.Namespace) -> None:
    """install Debian packages that are missing, and build the programs that are out of date"""
    if installed := packages.install():
        say(f"installed {' '.join(installed)}")
    programs.build(say)


def install_packages(arguments: argparse.Namespace) -> None:
    """install those of the named Debian packages that are missing"""
    if installed := packages.install(arguments.package):
        say(f"installed {' '.join(installed)}")


def unclaimed(_: argparse.Namespace) -> None:
    """fail at once if another cluster has the machine's real nodes, naming it"""
    if not os.environ.get("KUBECONFIG"):  # else the tests take that cluster, and start none
        claim.refuse_if_taken()


def up(arguments: argparse.Namespace) -> None:
    """start the cluster, or what is missing of it"""
    began = time.monotonic()
    wanted = Settings(
        name=arguments.name,
        nodes=arguments.nodes,
        gpus=arguments.gpus,
        grace=arguments.grace,
        s3=arguments.s3,
        mlflow=arguments.mlflow,
        host_mounts=host_mounts() if arguments.nodes else (),
    )
    cluster = Cluster.up(wanted, lambda what: say(f"{time.monotonic() - began:5.1f} s  {what}"))
    if wanted.mlflow:
        say(f"{time.monotonic() - began:5.1f} s  MLflow answers at {cluster.mlflow.uri}")


def down(arguments: argparse.Namespace) -> None:
    """stop the cluster and remove every trace of it but its logs"""
    take_down(CLUSTERS / arguments.name)


def status(arguments: argparse.Namespace) -> None:
    """list what runs, with its memory"""
    if held := claim.holder():
        say(f"real nodes of this machine: `{held.name}`")
    cluster = the_cluster(arguments)
    for name in cluster.processes.names():
        pid = cluster.processes.pid_of(name)
        members = nodes.members(Node(int(name[4:]))) if name.startswith("node") else cluster.processes.members(name)
        print(f"{name:24} " + (f"{sum(map(memory_mib, members)):5} MiB  pid {pid}" if pid else "not running"))
    for node in cluster.nodes:
        print(f"{node.name:24} {'Ready' if cluster.api.node_ready(node.name) else 'NotReady'}")


def kubeconfig(arguments: argparse.Namespace) -> None:
    """print the path of the administrator's kubeconfig"""
    print(the_cluster(arguments).kubeconfig)


def env(arguments: argparse.Namespace) -> None:
    """print the exports with which programs find cluster, S3 and MLflow"""
    for name, value in the_cluster(arguments).environment.items():
        text = f'{shlex.quote(str(BIN))}:"$PATH"' if name == "PATH" else shlex.quote(value)
        print(f"export {name}={text}")


def load_image(arguments: argparse.Namespace) -> None:
    """import an OCI or docker image archive into every node"""
    the_cluster(arguments).load_image(arguments.archive)


def stop_node(arguments: argparse.Namespace) -> None:
    """make a node fail: it loses power, its network, or its time"""
    the_cluster(arguments).stop_node(arguments.node, arguments.how)


def start_node(arguments: argparse.Namespace) -> None:
    """bring a stopped node back"""
    the_cluster(arguments).start_node(arguments.node)


def on_node(arguments: argparse.Namespace) -> None:
    """run a command inside a node, as ssh would"""
    command = nodes.run_on(Node(arguments.node), the_cluster(arguments).processes, *arguments.command)
    os.execvp(command[0], command)


def the_cluster(arguments: argparse.Namespace) -> Cluster:
    if cluster := Cluster.load(CLUSTERS / arguments.name):
        return cluster
    others = sorted(path.name for path in CLUSTERS.iterdir()) if CLUSTERS.exists() else []
    raise ClusterError(f"no cluster `{arguments.name}` is up" + (f"; there is {', '.join(others)}" if others else ""))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m testcluster", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--name", default="dev", help="which cluster (default: dev)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    subparsers = {}
    for run in (install, install_packages, unclaimed, up, down, status, kubeconfig, env, load_image, stop_node, start_node, on_node):
        name = run.__name__.replace("_", "-")
        subparsers[name] = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        subparsers[name].set_defaults(run=run)
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    add = subparsers["up"].add_argument
    add("--nodes", type=int, default=0, choices=range(MAX_NODES + 1), help="real nodes; 0, the default: an API without nodes")
    add("--gpus", type=int, default=0, metavar="N", help="nvidia.com/gpu that every node claims to have")
    add("--grace", type=int, default=defaults["grace"], metavar="SECONDS", help="after which a silent node is NotReady")
    add("--s3", action="store_true", help="an S3 server beside it")
    add("--mlflow", action="store_true", help="an MLflow server beside it")
    subparsers["install-packages"].add_argument("package", nargs="+", choices=packages.PACKAGES)
    subparsers["load-image"].add_argument("archive", type=Path)
    for name in ("stop-node", "start-node", "on-node"):
        subparsers[name].add_argument("node", type=int, choices=range(1, MAX_NODES + 1))
    subparsers["stop-node"].add_argument("--how", choices=("off", "partition", "freeze"), default="off")
    subparsers["on-node"].add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


if __name__ == "__main__":
    parsed = parse()
    try:
        parsed.run(parsed)
    except ClusterError as error:
        raise SystemExit(f"error: {error}") from None
