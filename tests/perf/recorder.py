"""Pairs of samples, their ratio with its interval, the table, and the JSON that is kept."""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from scipy import stats

PAIRS = 7
NON_INFERIORITY = 0.03
"""Margin where the goal is to be as good as the peer: noise alone puts half of the intervals below 1.0."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """`at_least` or `at_most` this ratio of ours to the peer's."""

    ratio: float
    direction: Literal["at_least", "at_most"]

    def reached(self, low: float, high: float) -> bool:
        """Whether the whole interval is on the right side, but for the margin where the goal is 1.0."""
        margin = NON_INFERIORITY if self.ratio == 1.0 else 0.0
        return low >= self.ratio * (1 - margin) if self.direction == "at_least" else high <= self.ratio * (1 + margin)

    def __str__(self) -> str:
        return f"{'>=' if self.direction == 'at_least' else '<='} {self.ratio:g} x"


@dataclasses.dataclass(frozen=True)
class Result:
    """One row of the table."""

    what: str
    unit: str
    peer: str
    goal: Goal
    samples: tuple[tuple[float, float], ...]

    @property
    def ratio(self) -> float:
        return math.exp(statistics.fmean(math.log(ours / peers) for ours, peers in self.samples))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the ratio's geometric mean (Student's t on the logarithms of paired ratios)."""
        logs = [math.log(ours / peers) for ours, peers in self.samples]
        half = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
        return math.exp(statistics.fmean(logs) - half), math.exp(statistics.fmean(logs) + half)

    @property
    def met(self) -> bool:
        return self.goal.reached(*self.interval)

    def record(self) -> dict[str, object]:
        low, high = self.interval
        return {
            "what": self.what,
            "unit": self.unit,
            "value": statistics.median(ours for ours, _ in self.samples),
            "peer": self.peer,
            "peerValue": statistics.median(peers for _, peers in self.samples),
            "ratio": self.ratio,
            "interval": [low, high],
            "goal": str(self.goal),
            "met": self.met,
            "samples": [list(pair) for pair in self.samples],
        }


def pairs(ours: Callable[[], float], peers: Callable[[], float], count: int = PAIRS) -> tuple[tuple[float, float], ...]:
    """Interleaved samples; the order within a pair alternates, so that drift of the machine favours neither."""
    found = []
    for index in range(count):
        if index % 2:
            theirs = peers()
            found.append((ours(), theirs))
        else:
            own = ours()
            found.append((own, peers()))
        print(f"  pair {index + 1}/{count}: {found[-1][0]:.4g} to {found[-1][1]:.4g}", flush=True)
    return tuple(found)


def table(results: Sequence[Result]) -> str:
    """Markdown, as it stands in docs."""
    lines = ["| what | ours | peer | ratio [95 %] | goal | met |", "| --- | --- | --- | --- | --- | --- |"]
    for result in results:
        row, (low, high) = result.record(), result.interval
        lines.append(
            f"| {result.what} | {row['value']:.4g} {result.unit} | {row['peerValue']:.4g} {result.unit} ({result.peer}) "
            f"| {result.ratio:.2f} [{low:.2f}, {high:.2f}] | {result.goal} | {'yes' if result.met else 'NO'} |"
        )
    return "\n".join(lines)


def write(results: Sequence[Result], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([result.record() for result in results], indent=2) + "\n")
