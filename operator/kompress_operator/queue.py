"""The work queue: which jobs must be looked at. Level-based: an event only says *that* something changed, never what.

A key is in it once, however many events arrive; one that arrives while its pass runs brings another pass after it, never
one beside it (client-go's rules). A failed pass comes back after a backoff, a decision may ask for a later look.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """For one event loop."""

    def __init__(self, backoff: float = 1.0, max_backoff: float = 60.0) -> None:
        self.backoff = backoff
        self.max_backoff = max_backoff
        self._waiting: OrderedDict[K, None] = OrderedDict()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._later: dict[K, asyncio.TimerHandle] = {}
        self._something = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K) -> None:
        """`key` must be looked at."""
        if key in self._working:
            self._again.add(key)
            return
        self._waiting.setdefault(key)
        self._something.set()

    def add_after(self, key: K, seconds: float) -> None:
        """`key` must be looked at then, or earlier; the earliest of several counts."""
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        known = self._later.get(key)
        if known is not None and known.when() <= at:
            return
        if known is not None:
            known.cancel()
        self._later[key] = loop.call_at(at, self._due, key)

    async def work(self, process: Callable[[K], Awaitable[float | None]], on_error: Callable[[K, Exception], None]) -> None:
        """One worker, until it is cancelled: `process` gives the seconds after which the key must be looked at again, or None."""
        while True:
            key = await self._take()
            self._cancel_later(key)
            try:
                after = await process(key)
            except Exception as error:
                on_error(key, error)
                after = self._next_backoff(key)
            else:
                self._failures.pop(key, None)
            finally:
                self._working.discard(key)
            if after is not None:
                self.add_after(key, after)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    def close(self) -> None:
        """No later look will come."""
        for handle in self._later.values():
            handle.cancel()
        self._later.clear()

    async def _take(self) -> K:
        while not self._waiting:
            self._something.clear()
            await self._something.wait()
        key, _ = self._waiting.popitem(last=False)
        self._working.add(key)
        return key

    def _due(self, key: K) -> None:
        self._later.pop(key, None)
        self.add(key)

    def _cancel_later(self, key: K) -> None:
        handle = self._later.pop(key, None)
        if handle is not None:
            handle.cancel()

    def _next_backoff(self, key: K) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(self.max_backoff, self.backoff * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)
