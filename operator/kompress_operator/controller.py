"""One pass over one job: observe, reconcile, act, write the status if it changed.

The order makes it safe to die anywhere: an action that was done and not recorded is found by the next pass (names are
deterministic), a status that was not written is worked out again.
"""

import dataclasses
import logging
import time
from collections.abc import Callable

from kompress_api.names import GROUP, PLURAL, VERSION
from kompress_api.status import CompressionJobStatus
from kompress_operator.act import act, write_status
from kompress_operator.api import Api, ApiProblem, Conflict, NotFound, Unreachable
from kompress_operator.events import news, tell
from kompress_operator.health import WatchHealth
from kompress_operator.metrics import Metrics
from kompress_operator.observe import Snapshot, observe
from kompress_operator.queue import WorkQueue
from kompress_operator.reconcile import reconcile
from kompress_operator.translation import Key

logger = logging.getLogger("kompress")
STALE_SECONDS = 0.1
"""Pause before a job is looked at again whose observation turned out to be stale."""


class Controller:
    """Looks at jobs."""

    def __init__(
        self, api: Api, queue: WorkQueue[Key], metrics: Metrics, health: WatchHealth, leads: Callable[[], bool], instance: str
    ) -> None:
        self.api = api
        self.queue = queue
        self.metrics = metrics
        self.health = health
        self.leads = leads
        self.instance = instance

    async def process(self, key: Key) -> float | None:
        """Seconds after which the job must be looked at again; None: when something changes."""
        began = time.monotonic()
        result = "error"
        try:
            again = await self._pass(key)
            result = "done"
            return again
        except Conflict as problem:
            logger.info("%s/%s changed meanwhile: %s", key.namespace, key.name, problem.message)
            result = "conflict"
            return STALE_SECONDS
        finally:
            self.metrics.reconcile_seconds.labels(result).observe(time.monotonic() - began)

    def failed(self, key: Key, error: Exception) -> None:
        """A pass that ended with an error; it is tried again after a backoff."""
        if isinstance(error, ApiProblem):
            logger.warning("%s/%s: %s", key.namespace, key.name, error.message)
        else:
            logger.error("%s/%s: this is a fault of the operator", key.namespace, key.name, exc_info=error)

    async def resync(self, namespaces: tuple[str, ...]) -> None:
        """Every job is looked at; what the watch has not told of is noted."""
        uids = set()
        for namespace in namespaces or ("",):
            where = f"namespaces/{namespace}/" if namespace else ""
            async for item in self.api.pages(f"/apis/{GROUP}/{VERSION}/{where}{PLURAL}"):
                metadata = item["metadata"]
                uids.add(metadata["uid"])
                self.health.read(PLURAL, metadata["uid"], metadata["resourceVersion"])
                self.queue.add(Key(metadata["namespace"], metadata["name"], metadata["uid"]))
        self.health.forget_unseen(PLURAL, uids)

    async def _pass(self, key: Key) -> float | None:
        now = time.time()
        snapshot = await observe(self.api, key, now)
        if snapshot is None:
            self.metrics.forget(key)
            self.health.gone(PLURAL, key.uid)
            return None
        for plural, uid, version in snapshot.seen:
            self.health.read(plural, uid, version)
        observed = snapshot.observed
        decision = reconcile(observed, now)
        if not self.leads():
            raise Unreachable("the Lease may have run out")
        obstacles = await act(self.api, key, snapshot, decision.actions, decision.status, self.metrics)
        if obstacles:
            decision = reconcile(dataclasses.replace(observed, obstacles=observed.obstacles + obstacles), now)
        if decision.status != observed.status:
            await self._write(key, snapshot, decision.status)
        self.metrics.know(key, decision.status)
        return decision.requeue_after

    async def _write(self, key: Key, snapshot: Snapshot, status: CompressionJobStatus) -> None:
        before = snapshot.observed.status
        try:
            await write_status(self.api, key, snapshot, status)
        except NotFound:  # deleted while we looked at it
            return
        except Conflict:
            self.metrics.status_writes.labels("conflict").inc()
            raise
        self.metrics.wrote(before, status)
        for piece in news(before, status):
            try:
                await tell(self.api, key, self.instance, piece)
            except ApiProblem as problem:  # the status holds the same
                logger.info("%s/%s: no Event: %s", key.namespace, key.name, problem.message)
        if before.phase is not status.phase:
            logger.info("%s/%s: %s -> %s (%s)", key.namespace, key.name, before.phase, status.phase, status.summary.stage or "-")
