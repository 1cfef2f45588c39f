"""The operator process: kopf watches, our queue decides when a job is looked at, the leader looks.

kopf supplies credentials for its watches, start-up, reconnection and signals. Its handlers are `on.event` only: no
finalizer, no annotation, no timer, nothing kept per object; all they do is put a key on the queue.
"""

import asyncio
import logging
import signal
import sys
from typing import Any

import kopf
from kubernetes.aio import client, config

from kompress_api.names import GROUP, KIND, LABEL_MANAGED_BY, PLURAL, RUNTIME_PLURAL, VERSION
from kompress_operator.api import Api, ApiProblem, Forbidden, NotFound
from kompress_operator.controller import Controller
from kompress_operator.health import WatchHealth, serve_health, serve_metrics
from kompress_operator.leader import Lease, lead
from kompress_operator.metrics import Metrics
from kompress_operator.queue import WorkQueue
from kompress_operator.settings import InvalidSetting, Settings
from kompress_operator.translation import Key, worker_state

logger = logging.getLogger("kompress")


def main() -> int:
    """Run until SIGTERM (0), a lost Lease or a broken watch (1); 2 for settings that can't be used."""
    try:
        settings = Settings.from_environment()
    except InvalidSetting as problem:
        print(f"kompress-operator: {problem}", file=sys.stderr)
        return 2
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("kopf.objects").setLevel(logging.ERROR)  # a line for each event otherwise
    return asyncio.run(run(settings))


async def run(settings: Settings) -> int:
    """Everything that lives as long as the process."""
    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            await config.load_kube_config()  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            logger.error("no cluster: neither a pod's service account nor a kubeconfig (%s); set KUBECONFIG", error)
            return 1
    async with client.ApiClient() as connection:
        api = Api(connection, settings.request_seconds)
        try:
            runtimes = await check_cluster(api, settings)
        except ApiProblem as problem:
            logger.error("%s", problem.message)
            return 1
        queue: WorkQueue[Key] = WorkQueue(settings.backoff_seconds, settings.max_backoff_seconds)
        health = WatchHealth(settings.deaf_seconds)
        lease = Lease(api, settings.namespace, settings.lease_name, settings.pod_name)
        controller = Controller(api, queue, Metrics(queue), health, lambda: lease.holds(settings.lease_seconds), settings.pod_name)
        ready = asyncio.Event()
        servers = [
            await serve_health(settings.health_port, health, ready.is_set),
            await serve_metrics(settings.metrics_port, controller.metrics.registry),
        ]
        try:
            return await _until_one_ends(settings, controller, lease, runtimes, ready)
        finally:
            queue.close()
            for server in servers:
                await server.cleanup()


async def check_cluster(api: Api, settings: Settings) -> bool:
    """Whether ClusterCompressionRuntimes may be read. Raises ApiProblem where the CRDs are missing or rights are."""
    for namespace in settings.watch_namespaces or ("",):
        where = f"namespaces/{namespace}/" if namespace else ""
        try:
            await api.get(f"/apis/{GROUP}/{VERSION}/{where}{PLURAL}", limit=1)
        except NotFound:
            raise NotFound(f"the API server knows no {KIND} of {GROUP}/{VERSION}: install the CRDs (the chart does)", 404) from None
    try:
        await api.get(f"/apis/{GROUP}/{VERSION}/{RUNTIME_PLURAL}", limit=1)
    except (Forbidden, NotFound):
        logger.warning("ClusterCompressionRuntimes can't be read: a job that names one is refused")
        return False
    return True


async def _until_one_ends(settings: Settings, controller: Controller, lease: Lease, runtimes: bool, ready: asyncio.Event) -> int:
    stop_watches, stopped = asyncio.Event(), asyncio.Event()
    identity: Any = settings.pod_name  # kopf would ask for the user's name, and a container's user has none
    leader = asyncio.create_task(lead(lease, settings, lambda: work(settings, controller)), name="leader")
    watches = asyncio.create_task(
        kopf.operator(
            registry=build_registry(controller, runtimes),
            settings=build_kopf_settings(settings),
            clusterwide=not settings.watch_namespaces,
            namespaces=settings.watch_namespaces,
            standalone=True,
            identity=identity,
            stop_flag=stop_watches,
            ready_flag=ready,
        ),
        name="watches",
    )
    signals = asyncio.create_task(_wait_for_signal(ready, stopped), name="signals")
    done, _ = await asyncio.wait({leader, watches, signals}, return_when=asyncio.FIRST_COMPLETED)
    for ours in (signals, leader):  # before kopf, which waits in vain for all tasks that it did not start
        ours.cancel()
    await asyncio.gather(signals, leader, return_exceptions=True)
    stop_watches.set()
    await asyncio.gather(watches, return_exceptions=True)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s ended", task.get_name(), exc_info=error)
            return 1
    return 1 if leader in done else 0


async def _wait_for_signal(ready: asyncio.Event, stopped: asyncio.Event) -> None:
    """SIGTERM and SIGINT end the work first and the watches after it; until it watches, kopf's own handlers hold."""
    await ready.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()


async def work(settings: Settings, controller: Controller) -> None:
    """What the leader does."""
    controller.metrics.leading = True
    async with asyncio.TaskGroup() as group:
        for _ in range(settings.workers):
            group.create_task(controller.queue.work(controller.process, controller.failed))
        while True:
            try:
                await controller.resync(settings.watch_namespaces)
            except ApiProblem as problem:
                logger.warning("resync: %s", problem.message)
            await asyncio.sleep(settings.resync_seconds)


def build_registry(controller: Controller, runtimes: bool) -> kopf.OperatorRegistry:
    """What kopf watches, and the one thing that an event does."""
    registry = kopf.OperatorRegistry()
    known: dict[str, Key] = {}
    attempts: dict[str, Key] = {}

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def job_changed(event: Any, **_: Any) -> None:
        metadata = event["object"]["metadata"]
        deleted = event["type"] == "DELETED"
        controller.health.heard(PLURAL, metadata["uid"], metadata["resourceVersion"], deleted)
        key = Key(metadata["namespace"], metadata["name"], metadata["uid"])
        phase = (event["object"].get("status") or {}).get("phase", "Pending")
        if deleted or phase != "Pending":
            known.pop(key.uid, None)
        else:
            known[key.uid] = key
        controller.queue.add(key)

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def attempt_changed(event: Any, **_: Any) -> None:
        metadata = event["object"]["metadata"]
        deleted = event["type"] == "DELETED"
        controller.health.heard("jobs", metadata["uid"], metadata["resourceVersion"], deleted)
        for owner in metadata.get("ownerReferences") or ():
            if owner.get("kind") == KIND:
                attempts[metadata["uid"]] = Key(metadata["namespace"], owner["name"], owner["uid"])
                controller.queue.add(attempts[metadata["uid"]])
        if deleted:
            attempts.pop(metadata["uid"], None)

    @kopf.on.event("v1", "pods", registry=registry)
    async def pod_changed(event: Any, **_: Any) -> None:
        """A pod whose container has ended says so two seconds before its Job does."""
        if "terminated" in worker_state(event["object"]):
            for owner in event["object"]["metadata"].get("ownerReferences") or ():
                if owner["uid"] in attempts:
                    controller.queue.add(attempts[owner["uid"]])

    if runtimes:

        @kopf.on.event(GROUP, VERSION, RUNTIME_PLURAL, registry=registry)
        async def runtime_changed(**_: Any) -> None:
            for key in known.values():  # jobs that may have waited for it
                controller.queue.add(key)

    return registry


def build_kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """kopf's defaults suit small operators: unlimited workers, endless retries, watches that may hang."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.queueing.worker_limit = settings.workers
    chosen.watching.server_timeout = settings.watch_seconds
    chosen.watching.client_timeout = settings.watch_seconds + settings.request_seconds
    chosen.watching.connect_timeout = settings.request_seconds
    chosen.networking.request_timeout = settings.request_seconds
    chosen.networking.connect_timeout = settings.request_seconds
    for resource in (("batch", "v1", "jobs"), ("v1", "pods")):
        chosen.watching.label_selectors[resource] = f"{LABEL_MANAGED_BY}=kompress"
    return chosen
