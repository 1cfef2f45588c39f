"""What a loop waits for and what memory it takes, measured alike in kompress's and in the peers' scripts."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Stopwatch:
    """Seconds inside of what it is put around; a call within a call counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.depth = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            self.depth += 1
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.seconds += time.perf_counter() - start

        return timed

    def each(self, items: Iterable[Any]) -> Iterator[Any]:
        """The same items; the wait for each is timed."""
        following = self.around(iter(items).__next__)
        while True:
            try:
                item = following()
            except StopIteration:
                return
            yield item

    def around_each(self, make: Callable[..., Iterable[Any]]) -> Callable[..., Iterator[Any]]:
        """The same generator, timed."""
        return lambda *arguments, **named: self.each(make(*arguments, **named))


class Memory:
    """Resident memory from here on: made when all is imported."""

    def __init__(self) -> None:
        CLEAR.write_text("5")  # the peak from now on, see proc(5)
        self.before = resident("VmRSS")

    def above(self) -> int:
        """Bytes of the peak above what was resident at first."""
        return resident("VmHWM") - self.before


def resident(field: str) -> int:
    """Bytes, as the kernel says."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
