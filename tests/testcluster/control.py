"""The control plane as processes of the host: etcd, API server, controllers, scheduler; and the DNS of a cluster with nodes."""

import json
from pathlib import Path

from testcluster import pki
from testcluster.api import Api
from testcluster.places import BIN, HOST_IP, SERVICES
from testcluster.processes import Processes
from testcluster.settings import Settings


def start(folder: Path, settings: Settings, processes: Processes) -> None:
    """Starts what is missing, and returns when pods can be created."""
    pki.create(folder, settings)
    keys, api = pki.folder_of(folder), Api(pki.kubeconfig(folder))
    etcd, peer = (f"http://127.0.0.1:{settings.ports[name]}" for name in ("etcd", "etcd-peer"))
    processes.start(
        "etcd",
        *(BIN / "etcd", "--data-dir", folder / "etcd", "--log-level=warn"),
        "--unsafe-no-fsync",  # a test's data need not survive a power cut
        *(f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"),
    )
    # The API server's default tolerations are what turns "node unreachable" into deleted pods, after 300 s by default.
    tolerations = [f"--default-{taint}-toleration-seconds={min(300, settings.grace)}" for taint in ("not-ready", "unreachable")]
    processes.start(
        "kube-apiserver",
        *(BIN / "kube-apiserver", f"--etcd-servers={etcd}", *tolerations),
        *(f"--bind-address={settings.ip}", f"--advertise-address={HOST_IP}", f"--secure-port={settings.ports['api']}"),
        # A loopback address is no valid endpoint of the Service `kubernetes`.
        f"--endpoint-reconciler-type={'lease' if settings.nodes else 'none'}",
        *(f"--tls-cert-file={keys}/apiserver.crt", f"--tls-private-key-file={keys}/apiserver.key"),
        *(f"--client-ca-file={keys}/ca.crt", f"--token-auth-file={keys}/tokens.csv", f"--cert-dir={folder}/apiserver"),
        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged"),
        *("--service-account-issuer=https://kubernetes.default.svc.cluster.local", f"--service-cluster-ip-range={SERVICES}"),
        *(f"--service-account-key-file={keys}/sa.pub", f"--service-account-signing-key-file={keys}/sa.key"),
        *(f"--kubelet-client-certificate={keys}/apiserver.crt", f"--kubelet-client-key={keys}/apiserver.key"),
        "--kubelet-preferred-address-types=InternalIP",
    )
    processes.wait(lambda: api.exists("/readyz"), "the API server", 60, alive="kube-apiserver")
    processes.start(
        *("kube-controller-manager", BIN / "kube-controller-manager", "--secure-port=0", "--leader-elect=false"),
        *(f"--kubeconfig={pki.kubeconfig(folder, 'kube-controller-manager')}", "--use-service-account-credentials"),
        *("--kube-api-qps=1000", "--kube-api-burst=2000"),  # the defaults would be what a test of many Jobs measures
        *(f"--service-account-private-key-file={keys}/sa.key", f"--root-ca-file={keys}/ca.crt"),
        *(f"--cluster-signing-cert-file={keys}/ca.crt", f"--cluster-signing-key-file={keys}/ca.key"),
        f"--flex-volume-plugin-dir={folder}/flexvolumes",  # else it makes a folder below /usr
        *(f"--node-monitor-grace-period={settings.grace}s", f"--node-monitor-period={max(1, settings.grace // 8)}s"),
    )
    scheduler = folder / "kube-scheduler.json"
    connection = {"kubeconfig": str(pki.kubeconfig(folder, "kube-scheduler")), "qps": 1000, "burst": 2000}
    configuration = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": connection,
    }
    scheduler.write_text(json.dumps(configuration))
    processes.start("kube-scheduler", BIN / "kube-scheduler", f"--config={scheduler}", "--secure-port=0")
    processes.wait(
        lambda: api.exists("/api/v1/namespaces/default/serviceaccounts/default"),
        *("the controllers", 60),
        alive="kube-controller-manager",
    )


def add_host_runtime(folder: Path) -> None:
    """Pods that ask for `runtimeClassName: host` see the host's folders of `host_mounts`; all others only their image."""
    api, path = Api(pki.kubeconfig(folder)), "/apis/node.k8s.io/v1/runtimeclasses"
    if not api.exists(f"{path}/host"):
        runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "host"}, "handler": "host"}
        api.call("POST", path, runtime)


def start_dns(folder: Path, processes: Processes) -> None:
    """Cluster names only, never cached: a pod's record must not be masked by an earlier "no such name"."""
    corefile = folder / "Corefile"
    corefile.write_text(f""".:53 {{
  bind {HOST_IP}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {pki.kubeconfig(folder)}
    pods insecure
    ttl 1
  }}
}}
""")
    processes.start("coredns", BIN / "coredns", "-conf", corefile)
