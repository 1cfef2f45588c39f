"""One of several replicas works: the one that holds a coordination.k8s.io Lease. A leader that can't renew it ends itself.

The election is kubernetes.aio's own (client-go's algorithm); here it is kept from dying of a network error, and the Lease
is given back at an orderly end, so that a successor needn't wait for it to run out.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from kompress_operator.settings import Settings

logger = logging.getLogger("kompress.leader")
NETWORK = (aiohttp.ClientError, TimeoutError, OSError)


class PatientLock(LeaseLock):
    """A LeaseLock to which an unreachable API server is a failed try, not the end."""

    async def get(self, name: str, namespace: str) -> Any:
        try:
            return await super().get(name, namespace)
        except NETWORK as error:
            return False, ApiException(reason=f"{type(error).__name__}: {error}")

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        try:
            return bool(await super().create(name, namespace, election_record))
        except NETWORK:
            return False

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        try:
            return bool(await super().update(name, namespace, updated_record))
        except NETWORK:
            return False

    async def release(self) -> None:
        """Anyone may take the Lease at once."""
        lease = self.lease_reference
        if lease is None or lease.spec is None:
            return
        lease.spec.holder_identity = ""
        lease.spec.lease_duration_seconds = 1
        try:
            await self.api_instance.replace_namespaced_lease(name=self.name, namespace=self.namespace, body=lease)
        except (ApiException, *NETWORK) as error:
            logger.info("the Lease was not given back: %s", error)


async def lead(connection: client.ApiClient, settings: Settings, work: Callable[[], Awaitable[None]]) -> None:
    """Wait for the Lease, then `work`; returns when the Lease is lost or the work ends. Cancelled: the Lease is given back."""
    lock = PatientLock(settings.lease_name, settings.namespace, settings.pod_name, connection)
    leading = False

    async def begin() -> None:
        nonlocal leading
        leading = True
        logger.info("%s leads", settings.pod_name)
        await work()

    async def lost() -> None:
        logger.error("%s has lost the Lease %s/%s", settings.pod_name, settings.namespace, settings.lease_name)

    config = Config(lock, settings.lease_seconds, settings.renew_seconds, settings.retry_seconds, begin, lost)
    try:
        await LeaderElection(config).run()
    except asyncio.CancelledError:
        if leading:
            await lock.release()
        raise
