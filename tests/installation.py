"""kompress in a cluster of `testcluster`, as a platform team installs it: the operator from its own image by the chart, the defaults
of examples/runtime.yaml, and in each namespace the Secret that they name. The demo and the e2e tests share it.
"""

import json

from testcluster import images
from testcluster.cluster import Cluster, Connection
from testcluster.places import REPOSITORY

CHART = REPOSITORY / "charts/kompress"
RUNTIME = REPOSITORY / "examples/runtime.yaml"
NAMESPACE = "kompress-system"
REGISTRY = "kompress.test"
OPERATOR_IMAGE = f"{REGISTRY}/kompress-operator:0.1.0"
"""What charts/kompress/README.md installs from this registry, at the chart's appVersion. No node pulls it: it is there."""
BUCKET = "kompress"
"""Of the `output` in examples/runtime.yaml, as is the name of the Secret."""
SECRET = "s3-credentials"


def install_operator(cluster: Connection, *options: str) -> None:
    """Installs or upgrades the operator and returns when it is ready; `options` are Helm's.

    Its image is built here, where its sources have changed. Another cluster, named by KUBECONFIG, has it already.

    Raises:
        ClusterError: it did not become ready in time; the text holds what Helm says.
    """
    if isinstance(cluster, Cluster):
        cluster.load_image(images.build(REPOSITORY / "operator/Dockerfile", OPERATOR_IMAGE))
    cluster.helm(
        *("upgrade", "--install", "kompress", str(CHART), f"--namespace={NAMESPACE}", "--create-namespace"),
        *(f"--set=image.repository={OPERATOR_IMAGE.rpartition(':')[0]}", *options, "--wait", "--timeout=3m"),
    )


def install_runtime(cluster: Connection) -> None:
    """Makes the platform's defaults, and the bucket that they name."""
    client = cluster.s3.client()
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    cluster.kubectl("apply", f"--filename={RUNTIME}")


def prepare_namespace(cluster: Connection, namespace: str) -> None:
    """Puts the credentials of the defaults' output into a namespace."""
    keys = {name: value for name, value in cluster.s3.environment.items() if name.endswith(("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": namespace}, "stringData": keys}
    cluster.kubectl("apply", "--filename=-", stdin=json.dumps(secret))
