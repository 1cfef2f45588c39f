"""Several labels a sample: every table says the same, figures are those of scikit-learn, and a model learns, is pruned and comes back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import ipc, parquet
from sklearn import metrics

from kompress_api.errors import DataUnreadable, LabelMismatch, MethodRefused
from kompress_api.places import Dataset
from kompress_jobs import classification, data
from kompress_jobs.context import StageOutput
from kompress_jobs.evaluation import other_data
from kompress_jobs.evaluation.answers import Answering
from kompress_jobs.loading import bundle
from kompress_jobs.losses import kd
from kompress_jobs.measure import multilabel
from kompress_jobs.samples.splits import Data
from kompress_jobs.tasks import text_classification
from kompress_jobs.training import objective

RunStage = Callable[..., StageOutput]
SETS: list[list[str]] = [["cat"], ["dog"], ["cat", "dog"], []]
ROWS: list[dict[str, Any]] = [{"text": f"row {number}", "label": SETS[number % 4]} for number in range(80)]


def as_csv(path: Path, *, as_list: bool) -> None:
    lines = ['"' + (json.dumps(row["label"]).replace('"', '""') if as_list else "|".join(row["label"])) + '"' for row in ROWS]
    path.write_text("text,label\n" + "\n".join(f"{row['text']},{line}" for row, line in zip(ROWS, lines, strict=True)))


def as_arrow(path: Path) -> None:
    """Numbers with names, as `datasets` writes a list of class labels."""
    names = ["cat", "dog"]
    feature = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"}
    told = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    rows = [{"text": row["text"], "label": [names.index(label) for label in row["label"]]} for row in ROWS]
    table = pyarrow.Table.from_pylist(rows).replace_schema_metadata(told)
    with ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table)


WRITERS: dict[str, Callable[[Path], object]] = {
    "train.csv": lambda path: as_csv(path, as_list=False),
    "lists.csv": lambda path: as_csv(path, as_list=True),
    "train.json": lambda path: path.write_text(json.dumps(ROWS)),
    "train.parquet": lambda path: parquet.write_table(pyarrow.Table.from_pylist(ROWS), path),
    "train.arrow": as_arrow,
}


def table(path: Path, **fields: object) -> Dataset:
    asked = {"source": path.as_uri(), "format": path.suffix[1:], "inputColumn": "text", "labelColumn": "label", "multiLabel": True}
    return Dataset.model_validate(asked | fields)


def load(path: Path, tmp_path: Path, **fields: object) -> Data:
    return data.load(table(path, **fields), tmp_path / "scratch")


@pytest.mark.parametrize("name", WRITERS)
def test_every_table_says_the_same_labels_of_each_row(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    found = load(tmp_path / name, tmp_path)
    assert found.labels == ["cat", "dog"]
    assert found.multi_label
    for split in (found.train, found.validation, found.test):
        texts, _ = split.read(torch.arange(len(split)))
        for text, targets in zip(texts, split.labels, strict=True):
            assert [found.labels[index] for index in targets.nonzero().flatten()] == SETS[int(text.split()[1]) % 4]
        assert split.labels.sum(0).min() > 0, "every label is in every split"


def test_labels_that_can_not_be_used_are_named_and_new_ones_refused(tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS]
    rows[3]["label"], rows[5]["label"] = None, ["cat", None]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    found = load(tmp_path / "train.json", tmp_path, maxUnreadableFraction=0.5)
    assert found.unreadable["train"] == ["train.json:4 (no label)", "train.json:6 (no label)"]
    (tmp_path / "test.json").write_text(json.dumps([{"text": "new", "label": ["cat", "cow"]}]))
    with pytest.raises(LabelMismatch, match="label 'cow' of split test"):
        load(tmp_path, tmp_path, format="json", maxUnreadableFraction=0.5)
    as_arrow(tmp_path / "train.arrow")
    with pytest.raises(DataUnreadable, match="holds lists") as caught:
        load(tmp_path / "train.arrow", tmp_path, multiLabel=False)
    assert "multiLabel: true" in caught.value.hint


def test_data_with_one_label_a_sample_are_not_taken_for_more(tmp_path: Path) -> None:
    with pytest.raises(MethodRefused, match="one label a sample") as caught:
        data.load(Dataset.model_validate({"source": "builtin://digits", "multiLabel": True}), tmp_path)
    assert caught.value.field == "spec.dataset.multiLabel"


def test_another_set_is_asked_for_the_labels_that_it_has(tmp_path: Path) -> None:
    """evaluation.datasets: labels are matched by name, and of one that the set lacks nobody says whether a sample carries it."""
    WRITERS["train.csv"](tmp_path / "train.csv")
    found = load(tmp_path / "train.csv", tmp_path)
    right = found.test.labels.float() * 2 - 1
    scores = torch.stack([torch.ones(len(right)), right[:, 1], right[:, 0]], 1)  # yes to every ant
    model = Answering(["ant", "dog", "cat"], lambda split: (scores, torch.arange(len(split))))
    said = other_data.answered(table(tmp_path / "train.csv"), 0, model, found, text_classification, tmp_path)
    assert said.labels == found.labels == ["cat", "dog"]
    assert said.about["metrics"]["accuracy"] == 1


def test_figures_are_those_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(1)
    targets = torch.rand(200, 5, generator=generator) < torch.tensor([0.5, 0.3, 0.1, 0.02, 0.7])
    scores = ((torch.randn(200, 5, generator=generator) + targets) * 4).round() / 4  # with ties
    found = multilabel.figures(scores, targets, list("abcde"))
    true, said = targets.numpy(), (scores > 0).numpy()
    expected = {
        "accuracy": metrics.accuracy_score(true, said),
        "recall": metrics.recall_score(true, said, average="macro"),
        "f1": metrics.f1_score(true, said, average="macro"),
        "f1Micro": metrics.f1_score(true, said, average="micro"),
        "meanAveragePrecision": metrics.average_precision_score(true, scores.numpy(), average="macro"),
        "loss": torch.nn.functional.binary_cross_entropy_with_logits(scores.double(), targets.double()).item(),
    }
    assert found.values == pytest.approx(expected)
    for name, value in found.values.items():
        low, high = found.intervals[name]
        assert low <= value <= high, name
    each = metrics.average_precision_score(true, scores.numpy(), average=None)
    assert [entry["averagePrecision"] for entry in found.per_class.values()] == pytest.approx(list(each))


def test_a_label_that_the_split_does_not_have_counts_for_nothing() -> None:
    targets = torch.tensor([[True, False], [True, False]])
    found = multilabel.figures(torch.tensor([[1.0, -1.0], [2.0, -1.0]]), targets, ["there", "absent"])
    assert (found.values["f1"], found.values["meanAveragePrecision"]) == (1.0, 1.0)
    assert classification.chance(targets, ["there", "absent"]) == 1.0


def test_a_rare_yes_weighs_as_much_as_all_its_nos() -> None:
    from kompress_api.stages.fine_tune import FineTune

    labels = torch.tensor([[True, True], [False, True], [False, False], [False, False]])
    weights = objective.class_weights(FineTune.model_validate({"epochs": 1, "classWeights": "Balanced"}), labels, 2, torch.device("cpu"))
    assert weights is not None
    assert weights.tolist() == [3.0, 1.0]


def test_a_student_who_answers_as_its_teacher_has_nothing_to_learn() -> None:
    scores = torch.randn(4, 3)
    targets = torch.zeros(4, 3, dtype=torch.bool)
    assert kd.loss(scores, scores, targets, 4.0).item() == pytest.approx(0.0, abs=1e-6)
    assert kd.loss(scores + 1, scores, targets, 4.0).item() > 0.01


@pytest.fixture
def tagged_digits(digits: Data, tmp_path: Path) -> dict[str, Any]:
    """A dataset block: digits with the tags even, large, round, from a table of their images."""
    import io

    from PIL import Image

    rows = []
    for split in (digits.train, digits.validation, digits.test):
        images, _ = split.read(torch.arange(len(split)))
        for image, label in zip(images, split.labels.tolist(), strict=True):
            file = io.BytesIO()
            Image.fromarray(image[0].numpy()).save(file, "PNG")  # type: ignore[union-attr]
            tags = [
                name for name, those in {"even": (0, 2, 4, 6, 8), "large": (5, 6, 7, 8, 9), "round": (0, 6, 8, 9)}.items() if label in those
            ]
            rows.append({"image": {"bytes": file.getvalue(), "path": None}, "tags": tags})
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "digits.parquet")
    place = (tmp_path / "digits.parquet").as_uri()
    return {"source": place, "format": "parquet", "inputColumn": "image", "labelColumn": "tags", "multiLabel": True}


def test_a_model_learns_several_labels_and_is_distilled_pruned_and_read_back(
    run_stage: RunStage, tagged_digits: dict[str, Any], tmp_path: Path
) -> None:
    """What a user would lose: tags that are all right in training and mean nothing in the bundle."""
    trained = run_stage(
        {"fineTune": {"strategy": "Full", "epochs": 8, "batchSize": 64, "learningRate": 5e-3, "classWeights": "Balanced"}},
        dataset=tagged_digits,
        scratch="trained",
    )
    assert trained.folder is not None
    assert trained.metrics["f1"] > 0.8, "always yes would reach 0.63"
    assert {"f1Micro", "meanAveragePrecision"} <= trained.metrics.keys()
    described = bundle.read(trained.folder).description
    assert (described.labels, described.multi_label) == (["even", "large", "round"], True)
    slim = run_stage(
        {"prune": {"importance": "Taylor", "pruningRatio": 0.3, "recovery": {"epochs": 2, "batchSize": 64, "learningRate": 3e-3}}},
        dataset=tagged_digits,
        inputs={"model": trained.folder},
        scratch="slim",
    )
    assert slim.metrics["f1"] > 0.75
    student = run_stage(
        {
            "distill": {"teachers": [{"from": "a"}], "student": {"source": "python://tiny_models:convolutional"}, "epochs": 4}
            | {"batchSize": 64, "learningRate": 5e-3}
        },
        dataset=tagged_digits,
        inputs={"teacher0": trained.folder},
        scratch="student",
    )
    assert student.metrics["f1"] > 0.7


def test_an_ensemble_answers_each_label_by_itself(run_stage: RunStage, tagged_digits: dict[str, Any]) -> None:
    """The mean of probabilities over labels that exclude each other would call a digit either even or large."""
    members = [
        run_stage(
            {"fineTune": {"strategy": "Full", "epochs": 4, "batchSize": 64, "learningRate": 5e-3}},
            dataset=tagged_digits,
            seed=seed,
            scratch=f"member{seed}",
        )
        for seed in (0, 1)
    ]
    fused = run_stage(
        {"fuse": {"method": "Ensemble", "models": [{"from": "a"}, {"from": "b"}]}},
        dataset=tagged_digits,
        inputs={f"model{index}": member.folder for index, member in enumerate(members)},
        scratch="fused",
    )
    assert fused.metrics["f1"] >= min(member.metrics["f1"] for member in members)
