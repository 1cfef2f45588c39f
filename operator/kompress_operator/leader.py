"""One of several replicas works: the one that holds a coordination.k8s.io Lease. A leader that can't renew it ends itself.

The election is kubernetes.aio's own (client-go's algorithm). Its LeaseLock can't create a Lease in 37.0.1 (`pretty=True` is
refused by its own validation) and dies of a network error; so the lock is here, and it gives the Lease back at an orderly
end, so that a successor needn't wait for it to run out.
"""

import asyncio
import datetime
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.baselock import BaseLock

from kompress_operator.api import Api, ApiProblem, Json
from kompress_operator.settings import Settings

logger = logging.getLogger("kompress.leader")


class Lease(BaseLock):
    """A Lease as the election's lock. An API server that can't be reached is a failed try."""

    def __init__(self, api: Api, namespace: str, name: str, identity: str) -> None:
        super().__init__(name, namespace, identity)
        self.api = api
        self.path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.found: Json = {}
        self.renewed = -math.inf

    def holds(self, seconds: float) -> bool:
        """Whether nobody else can have taken it: it was renewed less than `seconds` ago. Asked before each pass acts, so that a
        process that was frozen does not go on where its successor works already."""
        return time.monotonic() < self.renewed + seconds

    async def get(self, name: str, namespace: str) -> tuple[bool, LeaderElectionRecord] | tuple[bool, Exception] | tuple[bool, None]:
        """(True, who holds it), or (False, why that is not known)."""
        try:
            self.found = await self.api.get(f"{self.path}/{name}")
        except ApiProblem as problem:
            error = ApiException(status=problem.status, reason=problem.message)
            error.body = json.dumps({"code": problem.status})
            return False, error
        spec = self.found.get("spec") or {}
        seconds = spec.get("leaseDurationSeconds")
        times = spec.get("acquireTime"), spec.get("renewTime")
        return True, LeaderElectionRecord(spec.get("holderIdentity") or None, str(seconds) if seconds else None, *times)

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        """Whether it was created."""
        metadata = {"name": name, "namespace": namespace}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": self._spec(election_record)}
        return await self._try(self.api.create(self.path, body))

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        """Whether it was still as `get` had found it, and is ours now."""
        return await self._try(self.api.replace(f"{self.path}/{name}", self.found | {"spec": self._spec(updated_record)}))

    async def release(self) -> None:
        """If it is ours anyone may take it at once. Read anew: a renewal may have been cut off after it was done."""
        known, _ = await self.get(self.name, self.namespace)
        spec = self.found.get("spec") or {}
        if known and spec.get("holderIdentity") == self.identity:
            given_back = spec | {"holderIdentity": "", "leaseDurationSeconds": 1}
            await self._try(self.api.replace(f"{self.path}/{self.name}", self.found | {"spec": given_back}))
        self.renewed = -math.inf

    async def _try(self, request: Awaitable[Json]) -> bool:
        asked = time.monotonic()
        try:
            self.found = await request
        except ApiProblem as problem:
            logger.warning("Lease %s/%s: %s", self.namespace, self.name, problem.message)
            return False
        self.renewed = asked
        return True

    def _spec(self, record: LeaderElectionRecord) -> Json:
        """MicroTime wants its fraction, also where it is zero; a record that `get` gave carries the API's own times."""
        known = self.found.get("spec") or {}
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = known.get("holderIdentity") == record.holder_identity
        return {
            "holderIdentity": record.holder_identity,
            "leaseDurationSeconds": int(float(record.lease_duration or 0)),
            "acquireTime": known["acquireTime"] if mine and known.get("acquireTime") else now,
            "renewTime": now,
            "leaseTransitions": known.get("leaseTransitions", 0) + (0 if mine else 1),
        }


async def lead(lease: Lease, settings: Settings, work: Callable[[], Awaitable[None]]) -> None:
    """Wait for the Lease, then `work`; returns when the Lease is lost. Cancelled: the Lease is given back."""
    working: list[asyncio.Task[None]] = []
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def begin() -> None:
        logger.info("%s leads", settings.pod_name)
        task = asyncio.create_task(_work(work))
        working.append(task)
        try:
            await task
        except Exception as error:
            failed.set_exception(error)

    async def lost() -> None:
        logger.error("%s has lost the Lease %s/%s", settings.pod_name, settings.namespace, settings.lease_name)

    config = Config(lease, settings.lease_seconds, settings.renew_seconds, settings.retry_seconds, begin, lost)
    election = asyncio.create_task(LeaderElection(config).run())
    try:
        await asyncio.wait({election, failed}, return_when=asyncio.FIRST_COMPLETED)
        await (failed if failed.done() else election)
    finally:
        for task in (election, *working):
            task.cancel()
        await asyncio.gather(election, *working, return_exceptions=True)
        await lease.release()


async def _work(work: Callable[[], Awaitable[None]]) -> None:
    await work()
