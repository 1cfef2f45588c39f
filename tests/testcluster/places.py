"""Where the test cluster keeps its files, and the addresses that cannot vary.

Programs, images and build caches survive from run to run; a cluster's own folder goes with it.
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(
    os.environ.get("KOMPRESS_TESTCLUSTER") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kompress" / "testcluster"
).absolute()
BIN = CACHE / "bin"
"""Programs, made by `programs.py`."""
BUILDS = CACHE / "builds"
"""What `images.py` needs to build from Dockerfiles, and the archives it made."""
LOGS = CACHE / "log"
"""Logs of the last clusters that were taken down."""
CLUSTERS = CACHE / "clusters"
"""One folder per cluster that runs."""

CLAIM = Path("/run/kompress-testcluster.json")
"""Who holds the machine's one cluster with real nodes, whatever user, clone or cache folder it came from."""

BRIDGE = "kompress0"
HOST_IP = "10.250.0.1"
"""The host as nodes and pods see it. API server, DNS, S3 and MLflow listen here when there are real nodes."""
SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/16"
MAX_NODES = 9
