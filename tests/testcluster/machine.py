"""The first process of a real node:  python -m testcluster.machine CLUSTER_FOLDER INDEX

It runs as PID 1 in net, pid, mount and uts namespaces of its own (see `nodes.py`), lays out the file system and the network, and starts
containerd, kubelet and kube-proxy. When it dies the kernel ends everything on the node; it never cleans up.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from testcluster import pki
from testcluster.archives import PAUSE
from testcluster.places import BIN, HOST_IP, MAX_NODES, PODS
from testcluster.settings import Node, Settings

# `restrict_oom_score_adj`: this root may lack the right to lower it. `opt`: else a folder appears below the host's /opt.
CONTAINERD = """
version = 3
disabled_plugins = [{disabled}]
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  base_runtime_spec = "{home}/spec.json"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.host]
  runtime_type = "io.containerd.runc.v2"
  base_runtime_spec = "{home}/spec-host.json"
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{bin}"]
  conf_dir = "{home}/cni"
"""
UNUSED = (
    *("snapshotter.v1.btrfs", "snapshotter.v1.zfs", "snapshotter.v1.devmapper", "snapshotter.v1.blockfile"),
    *("snapshotter.v1.erofs", "nri.v1.nri", "tracing.processor.v1.otlp", "internal.v1.tracing"),
)


def main() -> None:
    folder, node = Path(sys.argv[1]), Node(int(sys.argv[2]))
    settings = Settings.load(folder)
    if settings is None:
        raise SystemExit(f"no cluster in {folder}")
    home = folder / node.name
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"  # containerd looks for its shim and runc there
    mount_file_systems(node, home)
    set_up_network(node)
    write_containerd_configs(node, settings, home)
    write_kubernetes_configs(node, settings, home, folder)
    start_daemon(node, folder, "containerd", "-c", home / "containerd.toml")
    while subprocess.run([BIN / "ctr", "version"], capture_output=True, check=False).returncode:
        time.sleep(0.1)
    import_images(folder)
    kubeconfig = pki.kubeconfig(folder, node.name)
    start_daemon(
        *(node, folder, "kubelet", f"--config={home}/kubelet.json", f"--kubeconfig={kubeconfig}"),
        *(f"--hostname-override={node.name}", f"--node-ip={node.ip}"),
    )
    start_daemon(node, folder, "kube-proxy", f"--config={home}/kube-proxy.json")
    while True:  # shims and their leftovers are re-parented to us
        pid, status = os.wait()
        print(f"reaped {pid} status {status}", flush=True)


def mount_file_systems(node: Node, home: Path) -> None:
    """Programs with fixed paths (the kubelet's device-plugin socket, containerd's state) must not meet the other node's."""
    run("mount", "--make-rshared", "/")  # volumes with mount propagation want a shared root
    for path in ("/var/lib", "/var/log"):
        source = home / path.strip("/").replace("/", "-")
        source.mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", source, path)
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    socket.sethostname(node.name)


def set_up_network(node: Node) -> None:
    while "eth0" not in (name for _, name in socket.if_nameindex()):  # nodes.py hands it over
        time.sleep(0.02)
    run("ip", "link", "set", "lo", "up")
    run("ip", "addr", "add", f"{node.ip}/24", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "via", HOST_IP)  # ClusterIPs need some route before they are translated
    for other in map(Node, range(1, MAX_NODES + 1)):
        if other != node:
            run("ip", "route", "add", other.pods, "via", other.ip)
    run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")


def write_containerd_configs(node: Node, settings: Settings, home: Path) -> None:
    addresses = {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": node.pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    port_map = {"type": "portmap", "capabilities": {"portMappings": True}}
    (home / "cni").mkdir(exist_ok=True)
    network = {"cniVersion": "1.0.0", "name": "testcluster", "plugins": [bridge, port_map]}
    (home / "cni/10-bridge.conflist").write_text(json.dumps(network))
    disabled = ", ".join(f'"io.containerd.{name}"' for name in UNUSED)
    (home / "containerd.toml").write_text(CONTAINERD.format(disabled=disabled, pause=PAUSE, home=home, bin=BIN))
    spec = json.loads(subprocess.check_output([BIN / "ctr", "oci", "spec"]))
    del spec["process"]["rlimits"]  # containerd's own, not 1,024 open files
    (home / "spec.json").write_text(json.dumps(spec))
    spec["mounts"] += [{"type": "bind", "source": path, "destination": path, "options": ["rbind", "ro"]} for path in settings.host_mounts]
    (home / "spec-host.json").write_text(json.dumps(spec))


def write_kubernetes_configs(node: Node, settings: Settings, home: Path, folder: Path) -> None:
    (home / "resolv.conf").write_text(f"nameserver {HOST_IP}\n")
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.ip,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki.folder_of(folder)}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",  # keeps kubelets of one machine apart
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "registerWithTaints": [],
        "clusterDNS": [HOST_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": str(home / "resolv.conf"),
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        "evictionHard": {
            "memory.available": "100Mi",
            **dict.fromkeys(("nodefs.available", "imagefs.available", "nodefs.inodesFree", "imagefs.inodesFree"), "1%"),
        },
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": f"{max(1, settings.grace // 10)}s",
        "nodeLeaseDurationSeconds": max(4, settings.grace // 2),
        "shutdownGracePeriod": "0s",
    }
    (home / "kubelet.json").write_text(json.dumps(kubelet))
    kube_proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": PODS,  # makes it masquerade the host's traffic to ClusterIPs
        "hostnameOverride": node.name,
        "bindAddress": node.ip,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        "clientConnection": {"kubeconfig": str(pki.kubeconfig(folder, "kube-proxy"))},
        # Zero: leave the settings of the whole machine alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
    }
    (home / "kube-proxy.json").write_text(json.dumps(kube_proxy))


def start_daemon(node: Node, folder: Path, name: str, *arguments: object) -> None:
    with (folder / "log" / f"{node.name}-{name}.log").open("ab") as log:
        subprocess.Popen([str(part) for part in (BIN / name, *arguments)], stdout=log, stderr=log)


def import_images(folder: Path) -> None:
    imported = Path("/var/lib/imported")
    imported.mkdir(exist_ok=True)
    for archive in sorted((folder / "images").glob("*.tar")):
        mark = imported / archive.name
        if not mark.exists():
            run(BIN / "ctr", "-n", "k8s.io", "images", "import", "--no-unpack", archive)
            mark.touch()


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
