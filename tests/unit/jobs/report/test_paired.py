"""Paired statistics against figures by hand, the bootstrap against the formula that it stands in for."""

import math

import numpy
import pytest
import torch

from kompress_jobs.measure import classification, multilabel, paired, predictions
from kompress_jobs.measure.classification import wilson
from kompress_jobs.measure.predictions import Predictions
from kompress_jobs.report.figures import difference

LABELS = [str(number) for number in range(8)]


def said(targets: numpy.ndarray, predicted: numpy.ndarray, labels: list[str] = LABELS) -> Predictions:
    count = len(targets)
    confidence = numpy.linspace(0.5, 1.0, count)
    return Predictions(labels, numpy.arange(count), [], targets, predicted, confidence, (predicted != targets) * 2.0 + 0.1)


def sides(lost: int, won: int, both: int, neither: int) -> tuple[Predictions, Predictions]:
    """Two models of two classes that differ in so many samples."""
    before = numpy.repeat([1, 0, 1, 0], [lost, won, both, neither])
    after = numpy.repeat([0, 1, 1, 0], [lost, won, both, neither])
    targets = numpy.ones(len(before), dtype=numpy.int64)
    return said(targets, before, ["no", "yes"]), said(targets, after, ["no", "yes"])


@pytest.mark.parametrize(("lost", "won", "p"), [(1, 9, 2 * 11 / 1024), (0, 0, 1.0), (7, 0, 2 / 128), (3, 3, 1.0)])
def test_mcnemar_s_test_is_exact(lost: int, won: int, p: float) -> None:
    """The binomial of a fair coin, by hand: the approximation by chi-square is far off where few samples differ."""
    found = paired.compare(*sides(lost, won, 80, 5))
    assert found is not None
    assert (found.flips.lost, found.flips.won) == (lost, won)
    assert found.flips.p == pytest.approx(p)


def test_the_interval_is_that_of_the_same_samples() -> None:
    """Wald's for paired shares, from what differs alone; Newcombe's for two independent samples is five times as wide."""
    lost, won, count = 20, 10, 1000
    found = paired.compare(*sides(lost, won, 900, 70))
    assert found is not None
    change = found.changes["accuracy"]
    half = 1.96 * math.sqrt(lost + won - (lost - won) ** 2 / count) / count
    assert change.value == pytest.approx(-0.01)
    assert change.high - change.low == pytest.approx(2 * half, rel=0.1)
    _, (low, high) = difference(0.91, wilson(910, count), 0.92, wilson(920, count))
    assert high - low > 2 * (change.high - change.low)


def test_resampled_figures_are_those_that_goals_are_judged_by() -> None:
    """Else an interval would belong to another figure than the one beside it."""
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(8, (400,), generator=generator)
    kept = []
    for _ in range(2):
        scores = torch.randn(400, 8, generator=generator) + 2 * torch.eye(8)[targets]
        kept.append((scores, classification.predictions(scores, targets, torch.arange(400), LABELS)))
    found = paired.compare(kept[0][1], kept[1][1])  # type: ignore[arg-type]
    assert found is not None
    before, after = (classification.figures(scores, targets, LABELS, intervals=False).values for scores, _ in kept)
    assert set(found.changes) == set(before) == {"accuracy", "recall", "f1", "loss", "top5"}
    for name, change in found.changes.items():
        assert change.value == pytest.approx(after[name] - before[name]), name
        assert change.low < change.value < change.high, name


def test_a_class_is_called_worse_only_beyond_what_many_classes_do_by_chance() -> None:
    """Six of six lost are beyond chance for one class (p = 0.03), not for the worst of eight; ten are."""
    targets = numpy.repeat(numpy.arange(8), 20)
    for lost, certain in ((6, False), (10, True)):
        after = targets.copy()
        after[20 : 20 + lost] = 7
        found = paired.compare(said(targets, targets), said(targets, after))
        assert found is not None
        worst = found.classes[0]
        assert (worst.label, worst.lost, worst.won, worst.samples) == ("1", lost, 0, 20)
        assert worst.certain is certain
        assert not any(entry.certain for entry in found.classes[1:])


def test_the_samples_that_flipped_are_told_by_name_the_surest_first() -> None:
    targets = numpy.array([0, 1, 2, 3])
    before, after = said(targets, numpy.array([0, 1, 7, 3])), said(targets, numpy.array([5, 1, 2, 6]))
    found = paired.compare(before, after)
    assert found is not None
    assert [(entry.name, entry.label, entry.before, entry.after) for entry in found.lost] == [
        ("sample 3", "3", "3", "6"),
        ("sample 0", "0", "0", "5"),
    ]
    assert [entry.name for entry in found.won] == ["sample 2"]
    assert found.dump(1)["flipped"]["lost"] == [{"name": "sample 3", "label": "3", "before": "3", "after": "6", "confidence": 1.0}]


def test_models_of_other_classes_are_not_compared() -> None:
    targets = numpy.array([0, 1])
    assert paired.compare(said(targets, targets), said(targets, targets, ["a", "b"])) is None


def test_models_that_give_several_labels_are_compared_sample_by_sample_and_label_by_label() -> None:
    """By the figures that goals are judged by, also after a file: without it a report would call no change of such a model certain."""
    labels, generator = ["cat", "dog", "hen"], torch.Generator().manual_seed(4)
    targets = torch.rand(300, 3, generator=generator) < torch.tensor([0.5, 0.3, 0.0])
    scores = [torch.randn(300, 3, generator=generator) + 3 * targets - 2 for _ in range(2)]
    scores[1][:, 1] = -5  # the second model knows no dogs
    positions = torch.arange(300).flip(0)  # as the ranks of a gang may give them
    sides = [multilabel.predictions(side.flip(0), targets.flip(0), positions, labels) for side in scores]
    found = paired.compare(*(predictions.decode(predictions.encode(side)) for side in sides))
    assert found is not None
    before, after = (multilabel.figures(side, targets, labels, intervals=False).values for side in scores)
    assert set(found.changes) == set(before) - {"meanAveragePrecision"}
    for name, change in found.changes.items():
        assert change.value == pytest.approx(after[name] - before[name]), name
    assert [entry.label for entry in found.classes] == ["dog", "cat"], "and no hen, of which there is none"
    dogs = found.classes[0]
    assert (dogs.samples, dogs.after, dogs.certain) == (int(targets[:, 1].sum()), 0.0, True)
    assert dogs.before == pytest.approx(float((scores[0][:, 1] > 0)[targets[:, 1]].double().mean()))
    lost = next(entry for entry in found.lost if entry.label == "cat, dog")
    assert (lost.before, lost.after) == ("cat, dog", "cat")
    assert "none" in {entry.label for entry in found.won + found.lost}
