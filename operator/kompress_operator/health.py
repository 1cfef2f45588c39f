"""Is the operator alive, ready, and does its watch still hear? Answers for the kubelet's probes and for Prometheus.

A loop that runs proves nothing about watches: kopf's have gone deaf for hours with /healthz OK. So whatever is read
directly is compared with what the watch has told: a resourceVersion that was read and is not heard of (or a later one of
the same object) within `deaf_seconds` means that the watch is deaf, and liveness fails.
"""

import time
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


class WatchHealth:
    """What the watch owes."""

    def __init__(self, deaf_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.deaf_seconds = deaf_seconds
        self.clock = clock
        self._heard: dict[tuple[str, str], int] = {}
        self._owed: dict[tuple[str, str], tuple[int, float]] = {}

    def heard(self, plural: str, uid: str, version: str, deleted: bool) -> None:
        """The watch told of an object."""
        thing = (plural, uid)
        if deleted:
            self.gone(plural, uid)
            return
        self._heard[thing] = int(version)
        owed = self._owed.get(thing)
        if owed is not None and owed[0] <= int(version):
            del self._owed[thing]

    def read(self, plural: str, uid: str, version: str) -> None:
        """An object was read directly: the watch must tell of it, too."""
        thing = (plural, uid)
        if self._heard.get(thing, 0) < int(version) and thing not in self._owed:
            self._owed[thing] = (int(version), self.clock())

    def gone(self, plural: str, uid: str) -> None:
        """An object does not exist any more: nothing is owed."""
        self._heard.pop((plural, uid), None)
        self._owed.pop((plural, uid), None)

    def forget_unseen(self, plural: str, uids: set[str]) -> None:
        """Of this kind only these exist."""
        for kind, uid in [*self._owed, *self._heard]:
            if kind == plural and uid not in uids:
                self.gone(kind, uid)

    @property
    def deaf(self) -> str:
        """What was never heard of; empty while all is well."""
        late = self.clock() - self.deaf_seconds
        for (plural, uid), (version, since) in self._owed.items():
            if since < late:
                return (
                    f"the watch is deaf: version {version} of {plural} {uid} was read {self.clock() - since:.0f} s ago and never heard of"
                )
        return ""


async def serve_health(port: int, health: WatchHealth, ready: Callable[[], bool]) -> web.AppRunner:
    """/healthz and /readyz on all addresses; the runner must be cleaned up."""

    async def alive(request: web.Request) -> web.Response:
        return web.Response(text=health.deaf or "ok", status=500 if health.deaf else 200)

    async def is_ready(request: web.Request) -> web.Response:
        return web.Response(text="ok" if ready() else "not watching yet", status=200 if ready() else 503)

    return await _serve(port, {"/healthz": alive, "/readyz": is_ready})


async def serve_metrics(port: int, registry: CollectorRegistry) -> web.AppRunner:
    """/metrics on all addresses; the runner must be cleaned up."""

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return await _serve(port, {"/metrics": metrics})


async def _serve(port: int, routes: dict[str, Callable[[web.Request], object]]) -> web.AppRunner:
    app = web.Application()
    app.add_routes([web.get(path, handler) for path, handler in routes.items()])  # type: ignore[arg-type]
    runner = web.AppRunner(app, handle_signals=False, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
