"""Pairs of samples, their ratio with its interval, the table, and the JSON that is kept."""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from scipy import stats

from kompress_jobs.measure.classification import wilson
from kompress_jobs.report import figures

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
class Level(Result):
    """Judged by our own figure, in its own unit; the peer's stands beside it."""

    @property
    def ratio(self) -> float:
        return statistics.fmean(ours for ours, _ in self.samples)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean (Student's t)."""
        found = [ours for ours, _ in self.samples]
        half = stats.t.ppf(0.975, len(found) - 1) * statistics.stdev(found) / math.sqrt(len(found))
        return float(statistics.fmean(found) - half), float(statistics.fmean(found) + half)


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


@dataclasses.dataclass(frozen=True)
class Unable:
    """What a peer can't do, in its own words."""

    what: str
    unit: str
    value: float
    peer: str
    why: str

    @property
    def record(self) -> dict[str, Any]:
        return {"what": self.what, "unit": self.unit, "value": self.value, "peer": self.peer, "unable": self.why}


AS_GOOD = Goal(0.0, "at_least", "points, but for noise")


def compared_shares(what: str, ours: float, peer: str, peers: float, samples: int) -> Told:
    """Accuracies on as many test samples, ours less the peer's in points: as good unless the whole interval says that it is worse."""
    low, high = (100 * end for end in difference(ours, peers, samples))
    return Told(what, "right", ours, peer, peers, 100 * (ours - peers), (low, high), AS_GOOD, met=high >= AS_GOOD.ratio)


def difference(first: float, second: float, samples: int) -> tuple[float, float]:
    """95 % interval of the difference of two shares (R. G. Newcombe, 1998, method 10). Both models saw the same samples, so it is
    wider than it need be."""
    own, other = (wilson(round(share * samples), samples) for share in (first, second))
    return figures.difference(first, own, second, other)[1]


Sample = TypeVar("Sample")


def interleaved(ours: Callable[[], Sample], peers: Callable[[], Sample], count: int) -> Iterator[tuple[Sample, Sample]]:
    """Pairs; the order within a pair alternates, so that drift of the machine favours neither."""
    for index in range(count):
        if index % 2:
            theirs = peers()
            yield ours(), theirs
        else:
            own = ours()
            yield own, peers()


def pairs(ours: Callable[[], float], peers: Callable[[], float], count: int = PAIRS) -> tuple[tuple[float, float], ...]:
    """Interleaved samples of one figure, told as they come."""
    found = []
    for pair in interleaved(ours, peers, count):
        found.append(pair)
        print(f"  pair {len(found)}/{count}: {pair[0]:.4g} to {pair[1]:.4g}", flush=True)
    return tuple(found)


Record = dict[str, Any]


def table(rows: Sequence[Record]) -> str:
    """Markdown, as it stands in docs."""
    lines = ["| what | ours | peer | ratio [95 %] | goal | met |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        ours = f"| {row['what']} | {row['value']:.4g} {row['unit']} "
        if "unable" in row:
            lines.append(f"{ours}| {row['peer']} can't: {row['unable']} | | | |")
            continue
        low, high = row["interval"]
        lines.append(
            f"{ours}| {row['peerValue']:.4g} {row['unit']} ({row['peer']}) "
            f"| {row['ratio']:.2f} [{low:.2f}, {high:.2f}] | {row['goal']} | {'yes' if row['met'] else 'NO'} |"
        )
    return "\n".join(lines)


def kept(path: Path) -> list[Record]:
    """The rows of earlier runs."""
    return json.loads(path.read_text()) if path.exists() else []


def merged(rows: Sequence[Record], found: Sequence[Record]) -> list[Record]:
    """`rows` with those of the same scenario and peer replaced by `found`, in place; new ones come last."""
    newer = {(row["what"], row["peer"]): row for row in found}
    places = [(row["what"], row["peer"]) for row in rows]
    return [newer.get(place, row) for place, row in zip(places, rows, strict=True)] + [
        row for place, row in newer.items() if place not in places
    ]


def write(rows: Sequence[Record], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(rows), indent=2) + "\n")
