"""Two models on the same samples: how sure is it that one is worse, at what, and which samples changed sides.

Both saw the same samples, so what counts is where they differ. McNemar's exact test (Q. McNemar, 1947) asks whether as many got
better as got worse. The interval of a figure's change is a percentile bootstrap (B. Efron, 1979): samples are drawn again with
replacement, both models' answers together. Classes are many tests at once, so theirs are corrected (S. Holm, 1979).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from scipy.special import bdtr  # scipy.stats takes a second to import

from kompress_jobs.measure.predictions import Array, Predictions, together

RESAMPLES = 1000
LEVEL = 0.05
"""A change of a class counts as certain below this probability of chance."""


@dataclasses.dataclass(frozen=True)
class Change:
    """Of a figure, after less before."""

    value: float
    low: float
    high: float
    """95 %."""


@dataclasses.dataclass(frozen=True)
class Flips:
    """How many samples changed sides."""

    lost: int
    """Right before, wrong after."""
    won: int
    """Wrong before, right after."""
    p: float
    """Probability of a difference as large as this one if both models were equally good."""

    @classmethod
    def of(cls, before: Array, after: Array) -> "Flips":
        """From what was right, (samples,), bool."""
        lost, won = int((before & ~after).sum()), int((~before & after).sum())
        return cls(lost, won, min(1.0, 2 * float(bdtr(min(lost, won), lost + won, 0.5))) if lost + won else 1.0)


@dataclasses.dataclass(frozen=True)
class ClassFlips(Flips):
    """Of the samples of one class."""

    label: str = ""
    samples: int = 0
    before: float = 0.0
    """Recall."""
    after: float = 0.0
    certain: bool = False
    """Beyond chance, the number of classes considered."""


@dataclasses.dataclass(frozen=True)
class Flipped:
    """A sample that changed sides."""

    name: str
    """Its own, else its position."""
    label: str
    before: str
    """What was said of it."""
    after: str
    confidence: float
    """Of the model after."""


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Of two models on what both saw."""

    samples: int
    flips: Flips
    changes: dict[str, Change]
    """accuracy, recall, f1, loss, top5 where it is known; f1Micro with several labels a sample; of recognisers wer, cer, loss."""
    classes: list[ClassFlips]
    """Classes with samples, those that lost most first."""
    lost: list[Flipped]
    """The surest mistakes first."""
    won: list[Flipped]
    draws: Mapping[str, Array] = dataclasses.field(repr=False)
    """Figure -> (RESAMPLES, 2): before and after, of each draw of the samples."""

    def dump(self, most: int) -> dict[str, Any]:
        """JSON, with `most` samples of each kind."""
        told = {name: getattr(self, name) for name in ("flips", "classes", "changes")}
        samples = {name: [dataclasses.asdict(entry) for entry in getattr(self, name)[:most]] for name in ("lost", "won")}
        return {
            "samples": self.samples,
            "mcnemar": dataclasses.asdict(told["flips"]),
            "changes": {name: dataclasses.asdict(change) for name, change in told["changes"].items()},
            "classes": [dataclasses.asdict(entry) for entry in told["classes"]],
            "flipped": samples,
        }


def compare(before: Predictions, after: Predictions) -> Comparison | None:
    """None where there is no sample that both saw, or they do not know the same classes."""
    if before.labels != after.labels:
        return None
    before, after = together([before, after])
    if not len(before):
        return None
    drawn = draws([before, after])
    whole = figures([before, after], numpy.arange(len(before)))
    changes = {}
    for name, values in drawn.items():
        low, high = numpy.quantile(values[:, 1] - values[:, 0], [0.025, 0.975])
        changes[name] = Change(float(whole[name][1] - whole[name][0]), float(low), float(high))
    return Comparison(
        samples=len(before),
        flips=Flips.of(before.right, after.right),
        changes=changes,
        classes=[] if before.spoken else by_class(before, after),
        lost=flipped(before, after, before.right & ~after.right),
        won=flipped(before, after, ~before.right & after.right),
        draws=drawn,
    )


def by_class(before: Predictions, after: Predictions) -> list[ClassFlips]:
    """Flips of every class that has samples, the greatest loss of recall first."""
    found = []
    for index, label in enumerate(before.labels):
        mine = before.marked.true[:, index] if before.marked else before.targets == index
        if mine.any():
            right = [(side.marked.said[:, index] if side.marked else side.right)[mine] for side in (before, after)]
            flips, recalls = Flips.of(*right), (float(side.mean()) for side in right)
            found.append(ClassFlips(flips.lost, flips.won, flips.p, label, int(mine.sum()), *recalls))
    return sorted(holm(found), key=lambda entry: (entry.after - entry.before, entry.label))


def holm(classes: Sequence[ClassFlips]) -> list[ClassFlips]:
    """With `certain` set: from the least p on, each against LEVEL over the number of classes that are left, until one fails."""
    certain = set()
    for rank, entry in enumerate(sorted(classes, key=lambda entry: entry.p)):
        if entry.p > LEVEL / (len(classes) - rank):
            break
        certain.add(entry.label)
    return [dataclasses.replace(entry, certain=entry.label in certain) for entry in classes]


def flipped(before: Predictions, after: Predictions, rows: Array) -> list[Flipped]:
    """The samples at `rows` (bool), the surest answers of the model after first."""
    chosen = numpy.flatnonzero(rows)
    chosen = chosen[numpy.argsort(-after.confidence[chosen], kind="stable")]
    return [
        Flipped(
            name=before.names[row] if before.names else f"sample {before.positions[row]}",
            label=true(before, row),
            before=said(before, row),
            after=said(after, row),
            confidence=round(float(after.confidence[row]), 4),
        )
        for row in chosen.tolist()
    ]


def true(side: Predictions, row: int) -> str:
    """What should be said of a sample."""
    if side.marked:
        return listed(side.labels, side.marked.true[row])
    return side.spoken.true[row] if side.spoken else side.labels[side.targets[row]]


def said(side: Predictions, row: int) -> str:
    """What a model says of a sample."""
    if side.marked:
        return listed(side.labels, side.marked.said[row])
    return side.spoken.said[row] if side.spoken else side.labels[side.predicted[row]]


def listed(labels: Sequence[str], marks: Array) -> str:
    """The labels of one sample."""
    return ", ".join(labels[index] for index in numpy.flatnonzero(marks)) or "none"


def draws(sides: Sequence[Predictions], resamples: int = RESAMPLES) -> dict[str, Array]:
    """Figure -> (resamples, sides): of each draw of the samples, all sides on the same one. They must have the same samples."""
    generator, count = numpy.random.default_rng(0), len(sides[0])
    found = [figures(sides, generator.integers(0, count, count)) for _ in range(resamples)]
    return {name: numpy.array([entry[name] for entry in found]) for name in found[0]}


def figures(sides: Sequence[Predictions], rows: Array) -> dict[str, list[float]]:
    """Figure -> that of each side on these samples; as `measure.classification` and `measure.recognition` have them."""
    spoken = [side.spoken for side in sides if side.spoken]
    if spoken:
        return {
            "wer": [float(side.wrong_words[rows].sum() / max(1, side.words[rows].sum())) for side in spoken],
            "cer": [float(side.wrong_characters[rows].sum() / max(1, side.characters[rows].sum())) for side in spoken],
            "loss": [float(side.losses[rows].mean()) for side in sides],
        }
    if sides[0].marked:
        return of_several(sides, rows)
    classes, targets = len(sides[0].labels), sides[0].targets[rows]
    true = numpy.bincount(targets, minlength=classes)
    present = true > 0
    found: dict[str, list[float]] = {"accuracy": [], "recall": [], "f1": [], "loss": []}
    if all(side.top5 is not None for side in sides):
        found["top5"] = []
    for side in sides:
        predicted = side.predicted[rows]
        right = predicted == targets
        hits = numpy.bincount(targets[right], minlength=classes)[present]
        said = numpy.bincount(predicted, minlength=classes)[present]
        found["accuracy"].append(float(right.mean()))
        found["recall"].append(float((hits / true[present]).mean()))
        found["f1"].append(float((2 * hits / (true[present] + said)).mean()))
        found["loss"].append(float(side.losses[rows].mean()))
        if "top5" in found and side.top5 is not None:
            found["top5"].append(float(side.top5[rows].mean()))
    return found


def of_several(sides: Sequence[Predictions], rows: Array) -> dict[str, list[float]]:
    """Figures where a sample may carry several labels; as `measure.multilabel` has them, but for what needs scores."""
    found: dict[str, list[float]] = {"accuracy": [], "recall": [], "f1": [], "f1Micro": [], "loss": []}
    for side in sides:
        assert side.marked is not None
        marked = side.marked.at(rows)
        hits, yes, carried = ((marked.said & marked.true).sum(0), marked.said.sum(0), marked.true.sum(0))
        present = carried > 0
        found["accuracy"].append(float(side.right[rows].mean()))
        found["recall"].append(float((hits / carried.clip(1))[present].mean()) if present.any() else 0.0)
        found["f1"].append(float((2 * hits / (yes + carried).clip(1))[present].mean()) if present.any() else 0.0)
        found["f1Micro"].append(float(2 * hits.sum() / max(1, yes.sum() + carried.sum())))
        found["loss"].append(float(side.losses[rows].mean()))
    return found
