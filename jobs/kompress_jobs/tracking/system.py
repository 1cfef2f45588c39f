"""Figures of the machine (processor, memory, disk, network, GPUs), by MLflow's own monitors, as events like any other.

MLflow's `SystemMetricsMonitor` is not used: it sends by itself and ends at the first failure of the server.
"""

import logging
import threading
from typing import Any

from kompress_jobs.events import SYSTEM_PREFIX, Events

log = logging.getLogger(__name__)
INTERVAL_SECONDS = 10.0
"""As MLflow's default."""


def monitor(events: Events, stop: threading.Event) -> None:
    """Tell the figures every ten seconds until `stop`; runs in a thread of its own."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]
    monitors = [*(kind() for kind in kinds), *_gpus()]
    step = 0
    while not stop.wait(INTERVAL_SECONDS if step else 1.0):
        figures: dict[str, float] = {}
        for entry in monitors:
            entry.collect_metrics()
            figures |= entry.aggregate_metrics()
            entry.clear_metrics()
        events.metrics({SYSTEM_PREFIX + name: value for name, value in figures.items()}, step)
        step += 1


def _gpus() -> list[Any]:
    from mlflow.system_metrics.metrics import gpu_monitor

    kind: Any = gpu_monitor.GPUMonitor
    try:
        return [kind()]
    except Exception as error:  # no GPU, or no library for it: MLflow raises ImportError, RuntimeError or pynvml's own
        log.debug("no GPU figures: %s", error)
        return []
