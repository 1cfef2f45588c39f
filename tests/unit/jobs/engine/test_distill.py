"""Distillation: the loss as documented, one label map, answers that are asked for once."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kompress_api.errors import LabelMismatch
from kompress_api.stages.distill import Distill
from kompress_jobs import bundle, engine
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.losses import kd
from kompress_jobs.stages import distill
from kompress_jobs.training.batches import Batch

MakeContext = Callable[..., StageContext]
RunStage = Callable[..., StageOutput]
STUDENT = {"source": "python://tiny_models:convolutional", "arguments": {"width": 8}}


def test_kd_is_the_formula() -> None:
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    p = 1 / (1 + math.exp(1.0))  # teacher's first class at T = 2
    q = 1 / (1 + math.exp(-0.5))
    expected = 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    assert float(kd.loss(student, teacher, 2.0)) == pytest.approx(expected)
    assert float(kd.loss(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha_is_the_share_of_the_imitation(alpha: float, make_context: MakeContext) -> None:
    spec = {"teachers": [{"from": "source"}], "student": STUDENT, "epochs": 1, "alpha": alpha, "temperature": 2, "augmentation": "None"}
    bench = engine.Bench(make_context({"distill": spec}, inputs={"teacher0": None}))
    parsed = Distill.model_validate(spec)
    teacher, student = bench.take("teacher0"), distill.take_student(bench, parsed)
    student.model.eval()
    live = distill.imitate(parsed, bench.task, teacher, student, None, None, field="f")
    cached = distill.objective(bench, parsed, teacher, student)
    images, _ = bench.data.train.read(torch.arange(5))
    batch = Batch(images, bench.data.train.labels[:5], torch.arange(5), 1.0)
    inputs = student.description.preprocessing(images)
    task = torch.nn.functional.cross_entropy(student.model(*inputs), batch.targets)
    imitation = kd.loss(student.model(*inputs), teacher.model(*inputs), 2.0)
    expected = (1 - alpha) * task + alpha * imitation
    torch.testing.assert_close(live(student.model, batch), expected)
    torch.testing.assert_close(cached(student.model, batch), expected, atol=1e-5, rtol=1e-5)


def test_the_stage_makes_a_smaller_student_and_tells_the_teacher_s_figures(run_stage: RunStage) -> None:
    spec = {"teachers": [{"from": "source"}], "student": STUDENT, "epochs": 4, "learningRate": 1e-2, "alpha": 0.2, "batchSize": 32}
    output = run_stage({"distill": spec}, inputs={"teacher0": None})
    assert output.folder is not None
    assert output.metrics["parameters"] < 0.4 * output.metrics["source.parameters"]
    assert output.metrics["accuracy"] > 0.5
    assert bundle.describe(output.folder).lineage == [{"stage": "stage", "kind": "distill", "job": "test", "seed": 0}]


def test_a_student_with_other_labels_is_refused(run_stage: RunStage, make_context: MakeContext, tmp_path: Path) -> None:
    bench = engine.Bench(make_context({"fineTune": {"epochs": 1}}))
    found = bench.take("model")
    labels = list(reversed(found.description.labels))
    bundle.write(tmp_path / "other", found.model, found.description.model_copy(update={"labels": labels}))
    with pytest.raises(LabelMismatch) as caught:
        run_stage(
            {"from": "source", "distill": {"teachers": [{"from": "source"}], "epochs": 1}},
            inputs={"teacher0": None, "model": tmp_path / "other"},
        )
    assert caught.value.exit_code == 78
