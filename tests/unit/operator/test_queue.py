"""A job is looked at after each change, by one worker at a time, and a failing one holds up nobody."""

import asyncio
from collections.abc import Awaitable, Callable

from kompress_operator.queue import WorkQueue

Process = Callable[[str], Awaitable[float | None]]


def never(key: str, error: Exception) -> None:
    raise AssertionError(f"{key}: {error}")


async def drained(queue: WorkQueue[str], process: Process, until: Callable[[], bool], workers: int = 3, on_error: object = never) -> None:
    tasks = [asyncio.create_task(queue.work(process, on_error)) for _ in range(workers)]  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        while not until():
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    queue.close()


async def test_many_events_are_one_look() -> None:
    queue: WorkQueue[str] = WorkQueue()
    looks: list[str] = []

    async def process(key: str) -> None:
        looks.append(key)

    for _ in range(100):
        queue.add("a")
    queue.add("b")
    assert len(queue) == 2
    await drained(queue, process, lambda: len(looks) == 2)
    assert looks == ["a", "b"]


async def test_an_event_during_a_look_brings_another_after_it_never_beside_it() -> None:
    queue: WorkQueue[str] = WorkQueue()
    inside, looks = 0, 0

    async def process(key: str) -> None:
        nonlocal inside, looks
        inside += 1
        assert inside == 1
        looks += 1
        if looks == 1:
            queue.add(key)
            queue.add(key)
        await asyncio.sleep(0)
        inside -= 1

    queue.add("a")
    await drained(queue, process, lambda: looks == 2 and not len(queue))
    assert looks == 2


async def test_a_failed_look_comes_back_while_others_go_on() -> None:
    queue: WorkQueue[str] = WorkQueue(backoff=0.001, max_backoff=0.01)
    looks: list[str] = []
    errors: list[str] = []

    async def process(key: str) -> None:
        looks.append(key)
        if looks.count(key) < 3 and key == "bad":
            raise ValueError(key)

    for key in ("bad", "good"):
        queue.add(key)
    await drained(queue, process, lambda: looks.count("bad") == 3, on_error=lambda key, error: errors.append(key))
    assert (errors, looks.count("good")) == (["bad", "bad"], 1)


async def test_a_look_that_is_asked_for_later_comes() -> None:
    queue: WorkQueue[str] = WorkQueue()
    looks = 0

    async def process(key: str) -> float | None:
        nonlocal looks
        looks += 1
        return 0.001 if looks == 1 else None

    queue.add("a")
    await drained(queue, process, lambda: looks == 2)


async def test_the_earliest_of_several_later_looks_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    looks = 0

    async def process(key: str) -> None:
        nonlocal looks
        looks += 1

    queue.add_after("a", 1000)
    queue.add_after("a", 0.001)
    queue.add_after("a", 2000)
    await drained(queue, process, lambda: looks == 1)
