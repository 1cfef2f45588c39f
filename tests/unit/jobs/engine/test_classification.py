"""Figures against scikit-learn's, and their intervals against published ones."""

import pytest
import torch
from sklearn.metrics import f1_score, log_loss, recall_score, top_k_accuracy_score

from kompress_jobs.measure import classification

LABELS = [str(index) for index in range(8)]


def test_figures_are_those_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(300, 8, generator=generator)
    targets = torch.randint(8, (300,), generator=generator)
    found = classification.figures(scores, targets, LABELS)
    predicted, truth = scores.argmax(1).numpy(), targets.numpy()
    assert found.values["accuracy"] == pytest.approx((predicted == truth).mean())
    assert found.values["recall"] == pytest.approx(recall_score(truth, predicted, average="macro"))
    assert found.values["f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert found.values["loss"] == pytest.approx(log_loss(truth, scores.double().softmax(1).numpy(), labels=range(8)))
    assert found.values["top5"] == pytest.approx(top_k_accuracy_score(truth, scores.numpy(), k=5, labels=range(8)))
    for name, (low, high) in found.intervals.items():
        assert low < found.values[name] < high, name
    assert found.per_class["3"]["recall"] == pytest.approx(recall_score(truth, predicted, average=None)[3])
    assert sum(entry["samples"] for entry in found.per_class.values()) == 300


def test_the_wilson_interval_is_the_published_one() -> None:
    """R. G. Newcombe, 1998, table I: 81 of 263, and 0 of 20."""
    assert classification.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert classification.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_a_class_without_samples_does_not_count() -> None:
    scores = torch.eye(3)[torch.tensor([0, 1, 1])]
    found = classification.figures(scores, torch.tensor([0, 1, 1]), ["a", "b", "c"])
    assert found.values["recall"] == found.values["f1"] == 1.0
    assert "top5" not in found.values
