"""How many threads a worker may use. Processes that share cores and each start a thread per core get 10 times slower."""

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def available_cpus(limit_file: Path = CGROUP_LIMIT) -> float:
    """Cores of this container: its CPU limit (cgroup v2: quota and period in µs), at most those that it may be scheduled on."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = limit_file.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else min(cores, int(quota) / int(period))


def limit_threads(environment: MutableMapping[str, str], processes: int, cpus: float) -> None:
    """Share the cores out among the processes of a pod, unless the pod's own environment has decided.

    A waiting OpenMP thread sleeps (GOMP_SPINCOUNT=0): spinning takes the cores that the other process needs.
    """
    environment.setdefault("OMP_NUM_THREADS", str(max(1, math.floor(cpus / processes))))
    environment.setdefault("RAYON_NUM_THREADS", environment["OMP_NUM_THREADS"])  # of the tokenizers library
    environment.setdefault("GOMP_SPINCOUNT", "0")
