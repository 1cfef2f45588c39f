"""What loops are watched with: both sides are measured by it, so it must count right."""

import time

import pytest

from perf.scripts.watch import Memory, Stopwatch


def test_a_call_within_a_call_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that waits for the one before it would be told as twice the time."""
    clock = iter([0.0, 1.0, 6.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    watch = Stopwatch()
    inner = watch.around(lambda: None)
    watch.around(inner)()
    assert watch.seconds == 6.0


def test_only_the_wait_for_an_item_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step between two batches is no wait."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def slow() -> "list[int]":
        nonlocal now
        for item in range(3):
            now += 1.0
            yield item

    watch = Stopwatch()
    for _ in watch.around_each(slow)():
        now += 10.0
    assert watch.seconds == 3.0


def test_memory_that_was_given_back_is_in_the_peak() -> None:
    """A copy that lives for a moment is what runs out of memory."""
    memory = Memory()
    block = bytearray(b"1" * 2**26)
    del block
    assert 2**26 <= memory.above() < 2**28
