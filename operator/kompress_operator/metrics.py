"""The operator's Prometheus metrics. Times are in seconds."""

import time
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kompress_api.status import CompressionJobStatus, StageState
from kompress_operator.actions import CreateAttempt
from kompress_operator.events import new_ends
from kompress_operator.queue import WorkQueue
from kompress_operator.translation import Key

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics(Collector):
    """What /metrics shows; a registry of its own, so that several can live in one process."""

    def __init__(self, queue: WorkQueue[Key]) -> None:
        self.registry = CollectorRegistry()
        self.queue = queue
        self.leading = False
        self._stages: dict[Key, Counter[StageState]] = {}
        self.reconcile_seconds = Histogram(
            "kompress_reconcile_seconds", "One pass over a job", ["result"], buckets=LATENCY_BUCKETS, registry=self.registry
        )
        self.start_seconds = Histogram(
            "kompress_stage_start_seconds",
            "From ready to run (inputs there, backoff over) to Job created",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.attempt_ends = PrometheusCounter(
            "kompress_attempt_ends",
            "Attempts that ended, by outcome and whether a restart was spent",
            ["outcome", "spent"],
            registry=self.registry,
        )
        self.status_writes = PrometheusCounter("kompress_status_writes", "Status writes, by result", ["result"], registry=self.registry)
        self.registry.register(self)

    def started(self, action: CreateAttempt) -> None:
        """A stage attempt was created."""
        self.start_seconds.observe(max(0.0, time.time() - action.ready_at))

    def wrote(self, before: CompressionJobStatus, after: CompressionJobStatus) -> None:
        """A status was written: what ended in it is counted, once."""
        self.status_writes.labels("written").inc()
        for _, attempt in new_ends(before, after):
            self.attempt_ends.labels(attempt.outcome, str(attempt.spent_restart).lower()).inc()

    def know(self, key: Key, status: CompressionJobStatus) -> None:
        """What a job's stages are at."""
        self._stages[key] = Counter(entry.state for entry in status.stages)

    def forget(self, key: Key) -> None:
        """A job is gone."""
        self._stages.pop(key, None)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Figures that are read when asked for."""
        depth = GaugeMetricFamily("kompress_queue_depth", "Jobs that wait to be looked at")
        depth.add_metric([], len(self.queue))
        yield depth
        leading = GaugeMetricFamily("kompress_leading", "1 where this operator holds the Lease")
        leading.add_metric([], float(self.leading))
        yield leading
        stages = GaugeMetricFamily("kompress_stages", "Stages of all jobs by state", labels=["state"])
        total: Counter[StageState] = sum(self._stages.values(), Counter())
        for state in StageState:
            stages.add_metric([state.value], total[state])
        yield stages
