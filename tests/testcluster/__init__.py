"""A real, small Kubernetes on one Linux machine, for kompress's own tests and its demo.

etcd, API server, controllers, scheduler, kubelets, containerd, runc, kube-proxy and CoreDNS are built from pinned Go modules
(`programs/`) and run as plain processes: no container engine, no registry, nothing downloaded when a cluster starts. Beside them run
the two servers that a compression job needs: S3 (versitygw on a folder) and MLflow.

| file | holds |
| --- | --- |
| `packages.py`, `programs.py` | what a fresh machine lacks: Debian packages, programs built by Go |
| `places.py`, `settings.py` | folders and addresses; what one cluster was asked to be |
| `processes.py`, `claim.py` | processes known by pid and start time; the machine's one cluster with real nodes |
| `pki.py`, `api.py`, `control.py` | keys and kubeconfigs; a minimal client; the control plane and DNS |
| `servers.py` | the S3 and the MLflow server, also alone |
| `nodes.py`, `machine.py` | real nodes: the host's side, and the first process inside |
| `archives.py`, `images.py` | image archives: from a folder, and from a Dockerfile (buildah, no engine) |
| `cluster.py`, `__main__.py` | one cluster from `up` to `down`; the command line |

It knows nothing of kompress's API: what is installed into the cluster is the business of the chart, the demo and the tests.
"""
