"""What a model said of each sample is kept with the model, and says the same as its figures."""

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.context import StageOutput
from kompress_jobs.measure import classification, predictions
from kompress_jobs.measure.predictions import Predictions
from kompress_jobs.samples import tables
from kompress_jobs.samples.splits import Data

RunStage = Callable[..., StageOutput]
LABELS = [str(digit) for digit in range(10)]


def read(folder: Path, name: str) -> Predictions:
    return predictions.decode((folder / predictions.file_of(name)).read_bytes())


def agrees(said: Predictions, metrics: dict[str, float], prefix: str = "") -> bool:
    assert said.top5 is not None
    return {name: metrics[prefix + name] for name in ("accuracy", "loss", "top5")} == pytest.approx(
        {"accuracy": said.right.mean(), "loss": said.losses.mean(), "top5": said.top5.mean()}
    )


def test_a_stage_keeps_what_its_model_and_the_source_said_of_every_test_sample(digits: Data, run_stage: RunStage) -> None:
    """Without it nobody can tell whether a loss is noise, nor which samples it hit."""
    output = run_stage({"fineTune": {"epochs": 2, "learningRate": 1e-2}})
    assert output.folder is not None
    own, source = (read(output.folder, name) for name in ("test", "source"))
    assert agrees(own, output.metrics)
    assert agrees(source, output.metrics, "source.")
    assert own.labels == LABELS
    assert own.positions.tolist() == list(range(len(digits.test)))
    assert own.targets.tolist() == digits.test.labels.tolist()


def test_an_export_keeps_both_sides_of_its_comparison(run_stage: RunStage) -> None:
    spec = {"formats": [{"type": "ONNX"}], "targets": [{"batchSizes": [1]}], "benchmark": {"iterations": 10, "warmup": 1}}
    output = run_stage({"export": spec}, inputs={"model": None, "baseline": None})
    assert output.folder is not None
    assert agrees(read(output.folder, "test"), output.metrics)
    assert agrees(read(output.folder, "baseline"), output.metrics, "baseline.")


def test_a_quantized_model_is_judged_by_what_its_graph_said(run_stage: RunStage) -> None:
    """The float model's answers are not those that the user will get."""
    output = run_stage({"quantize": {"mode": "Dynamic"}})
    assert output.folder is not None
    assert agrees(read(output.folder, "test"), output.metrics)


def test_samples_keep_the_names_that_people_know_them_by(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        rows = [f"{word},{label}" for label in ("no", "yes") for word in ("one", "two", "three")]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *rows]))
    block = {"source": f"file://{tmp_path}", "format": "csv", "inputColumn": "text", "labelColumn": "label"}
    found = data.load(Dataset.model_validate(block), tmp_path)
    assert isinstance(found.test, tables.TextSplit)
    seen = torch.tensor([4, 1])  # as the ranks of a gang may give them
    said = classification.predictions(torch.eye(2)[[0, 1]], found.test.labels[seen], seen, found.labels)
    named = said.named(found.test)
    assert named.positions.tolist() == [1, 4]
    assert [name.rpartition("/")[2] for name in named.names] == [found.test.names[1], found.test.names[4]]
    again = predictions.decode(predictions.encode(named))
    assert (again.names, again.predicted.tolist(), again.labels) == (named.names, [1, 0], ["no", "yes"])
    assert again.confidence == pytest.approx(named.confidence)


def test_only_what_both_models_saw_is_compared() -> None:
    def made(positions: list[int]) -> Predictions:
        numbers = numpy.array(positions)
        zeros = numpy.zeros(len(numbers))
        return Predictions(["a", "b"], numbers, [f"file{number}" for number in positions], numbers % 2, numbers % 2, zeros, zeros)

    first, second = predictions.together([made([0, 2, 3, 9]), made([2, 3, 4])])
    assert first.names == second.names == ["file2", "file3"]
    assert first.targets.tolist() == [0, 1]


def test_another_file_is_no_list_of_predictions() -> None:
    with pytest.raises(ValueError, match="no file of predictions"):
        predictions.decode(b"PAR1 and nothing else")
