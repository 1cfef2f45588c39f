"""Keys, tokens and kubeconfigs of one cluster: one authority, one certificate, static tokens for everything else."""

import json
import secrets
import subprocess
from pathlib import Path

from testcluster.places import HOST_IP, MAX_NODES
from testcluster.settings import Node, Settings

USERS = {  # kubeconfig: (user, group)
    "admin": ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
    **{node.name: (f"system:node:{node.name}", "system:nodes") for node in map(Node, range(1, MAX_NODES + 1))},
}


def folder_of(cluster: Path) -> Path:
    return cluster / "pki"


def kubeconfig(cluster: Path, user: str = "admin") -> Path:
    """Where the kubeconfig of a user lies; the administrator's is the one that people use."""
    return cluster / "kubeconfig" if user == "admin" else folder_of(cluster) / f"{user}.kubeconfig"


def create(cluster: Path, settings: Settings) -> None:
    """Makes all keys and kubeconfigs, once per cluster."""
    pki = folder_of(cluster)
    authority = pki / "ca.crt"
    if authority.exists():
        return
    pki.mkdir(mode=0o700, parents=True, exist_ok=True)

    def openssl(*arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], cwd=pki, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 3650)
    openssl("genrsa", "-out", "sa.key", 2048)
    openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    openssl(
        *("req", "-x509", *new_key, "-subj", "/CN=kompress-testcluster", "-keyout", "ca.key", "-out", "ca.part"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"),
    )
    service = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    names = [f"DNS:{name}" for name in ("localhost", *service)]
    names += [f"IP:{address}" for address in ("127.0.0.1", HOST_IP, "10.96.0.1")]
    # Serves the API, and is the API server's client certificate towards the kubelets.
    openssl(
        *("req", "-x509", *new_key, "-CA", "ca.part", "-CAkey", "ca.key", "-subj", "/O=system:masters/CN=kube-apiserver"),
        *("-keyout", "apiserver.key", "-out", "apiserver.crt", "-addext", f"subjectAltName={','.join(names)}"),
        *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth,clientAuth"),
    )
    tokens = {name: secrets.token_hex(16) for name in USERS}
    lines = [f'{tokens[name]},{user},{user},"{group}"\n' for name, (user, group) in USERS.items()]
    (pki / "tokens.csv").write_text("".join(lines))
    server = {"server": f"https://{settings.ip}:{settings.ports['api']}", "certificate-authority": str(authority)}
    for name, token in tokens.items():
        path = kubeconfig(cluster, name)
        path.touch(mode=0o600)
        content = {  # JSON is YAML
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": settings.name,
            "contexts": [{"name": settings.name, "context": {"cluster": settings.name, "user": name}}],
            "users": [{"name": name, "user": {"token": token}}],
            "clusters": [{"name": settings.name, "cluster": server}],
        }
        path.write_text(json.dumps(content))
    (pki / "ca.part").rename(authority)  # last: its presence says that all is there
