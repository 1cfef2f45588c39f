"""Pairs of samples, their ratio with its interval, the table, and the JSON that is kept."""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from scipy import stats

PAIRS = 7
NON_INFERIORITY = 0.03
"""Margin where the goal is to be as good as the peer: noise alone puts half of the intervals below 1.0."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """`at_least` or `at_most` this ratio of ours to the peer's."""

    ratio: float
    direction: Literal["at_least", "at_most"]
    unit: str = "x"
    """`x` for a ratio; a difference has the unit of what is compared."""

    def reached(self, low: float, high: float) -> bool:
        """Whether the whole interval is on the right side, but for the margin where the goal is 1.0."""
        margin = NON_INFERIORITY if self.ratio == 1.0 and self.unit == "x" else 0.0
        return low >= self.ratio * (1 - margin) if self.direction == "at_least" else high <= self.ratio * (1 + margin)

    def __str__(self) -> str:
        return f"{'>=' if self.direction == 'at_least' else '<='} {self.ratio:g} {self.unit}"


class Row(Protocol):
    """One row of the table."""

    @property
    def record(self) -> dict[str, Any]:
        """As it is kept: what, unit, value, peer, peerValue, ratio (or difference), interval, goal, met, samples."""


@dataclasses.dataclass(frozen=True)
class Result:
    """Measured here, in pairs."""

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

    @property
    def record(self) -> dict[str, Any]:
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


@dataclasses.dataclass(frozen=True)
class Told:
    """Measured by the product itself, with an interval of its own."""

    what: str
    unit: str
    value: float
    peer: str
    peer_value: float
    compared: float
    """Ratio to the peer, or the difference."""
    interval: tuple[float, float]
    goal: Goal
    met: bool

    @property
    def record(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "unit": self.unit,
            "value": self.value,
            "peer": self.peer,
            "peerValue": self.peer_value,
            "ratio": self.compared,
            "interval": list(self.interval),
            "goal": str(self.goal),
            "met": self.met,
            "samples": [[self.value, self.peer_value]],
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


def table(rows: Sequence[Row]) -> str:
    """Markdown, as it stands in docs."""
    lines = ["| what | ours | peer | ratio [95 %] | goal | met |", "| --- | --- | --- | --- | --- | --- |"]
    for row in (row.record for row in rows):
        low, high = row["interval"]
        lines.append(
            f"| {row['what']} | {row['value']:.4g} {row['unit']} | {row['peerValue']:.4g} {row['unit']} ({row['peer']}) "
            f"| {row['ratio']:.2f} [{low:.2f}, {high:.2f}] | {row['goal']} | {'yes' if row['met'] else 'NO'} |"
        )
    return "\n".join(lines)


def write(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row.record for row in rows], indent=2) + "\n")
