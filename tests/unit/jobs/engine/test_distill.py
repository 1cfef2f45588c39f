"""Distillation: the loss as documented, one label map, a student of whatever origin."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
import torch
from stage_contexts import CPU

from kompress_api.errors import LabelMismatch, MethodRefused
from kompress_api.stages.distill import Distill, DistillLoss
from kompress_api.stages.stage import Stage
from kompress_jobs import models, registry
from kompress_jobs.bench import Bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import redescribed
from kompress_jobs.distillation import taps, teacher_cache
from kompress_jobs.loading import bundle
from kompress_jobs.losses import attention, dkd, kd, relational
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
    targets = torch.tensor([0])
    assert float(kd.loss(student, teacher, targets, 2.0)) == pytest.approx(expected)
    assert float(kd.loss(teacher, teacher, targets, 3.0)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha_is_the_share_of_the_imitation(alpha: float, make_context: MakeContext) -> None:
    spec = {"teachers": [{"from": "source"}], "student": STUDENT, "epochs": 1, "alpha": alpha, "temperature": 2, "augmentation": "None"}
    bench = Bench(make_context({"distill": spec}, inputs={"teacher0": None}, device=CPU))
    parsed = Distill.model_validate(spec)
    teacher = bench.take("teacher0")
    student = distill.take_student(bench, parsed, teacher)
    student.model.eval()
    live, cached = (distill.Lesson(parsed, bench.task, [teacher], student, None, CPU, field="f") for _ in range(2))
    cached.remember([teacher_cache.answers(bench, teacher, "teacher0")])
    images, _ = bench.data.train.read(torch.arange(5))
    batch = Batch(images, bench.data.train.labels[:5], torch.arange(5), 1.0)
    inputs = student.description.preprocessing(images)
    task = torch.nn.functional.cross_entropy(student.model(*inputs), batch.targets)
    imitation = kd.loss(student.model(*inputs), teacher.model(*inputs), batch.targets, 2.0)
    expected = (1 - alpha) * task + alpha * imitation
    torch.testing.assert_close(live.objective(student.model, batch), expected)
    torch.testing.assert_close(cached.objective(student.model, batch), expected, atol=1e-3, rtol=1e-3)


def test_the_stage_makes_a_smaller_student_and_tells_the_teacher_s_figures(run_stage: RunStage) -> None:
    spec = {"teachers": [{"from": "source"}], "student": STUDENT, "epochs": 4, "learningRate": 1e-2, "alpha": 0.2, "batchSize": 32}
    output = run_stage({"distill": spec}, inputs={"teacher0": None})
    assert output.folder is not None
    assert output.metrics["parameters"] < 0.4 * output.metrics["source.parameters"]
    assert output.metrics["accuracy"] > 0.5
    assert bundle.describe(output.folder).lineage == [{"stage": "stage", "kind": "distill", "job": "test", "seed": 0}]


def test_a_student_with_other_labels_is_refused(run_stage: RunStage, make_context: MakeContext, tmp_path: Path) -> None:
    bench = Bench(make_context({"fineTune": {"epochs": 1}}))
    found = bench.take("model")
    labels = list(reversed(found.description.labels))
    bundle.write(tmp_path / "other", found.model, found.description.model_copy(update={"labels": labels}))
    with pytest.raises(LabelMismatch) as caught:
        run_stage(
            {"from": "source", "distill": {"teachers": [{"from": "source"}], "epochs": 1}},
            inputs={"teacher0": None, "model": tmp_path / "other"},
        )
    assert caught.value.exit_code == 78


def test_two_teachers_count_by_their_weights_and_a_larger_student_is_told(run_stage: RunStage, tmp_path: Path) -> None:
    wide = {"source": "python://tiny_models:convolutional", "arguments": {"width": 24}}
    spec = {"teachers": [{"from": "source", "weight": 3}, {"from": "source"}], "student": wide, "epochs": 1, "alpha": 1.0}
    output = run_stage({"distill": spec}, inputs={"teacher0": None, "teacher1": None})
    assert output.folder is not None
    events = (tmp_path / "scratch" / "events.jsonl").read_text()
    assert "nothing gets smaller" in events


def test_shares_of_teachers_are_normalised(make_context: MakeContext) -> None:
    spec = {
        "teachers": [{"from": "source", "weight": 3}, {"from": "source"}],
        "student": STUDENT,
        "epochs": 1,
        "alpha": 1.0,
        "temperature": 2,
    }
    bench = Bench(make_context({"distill": spec}, inputs={"teacher0": None, "teacher1": None}, device=CPU))
    parsed = Distill.model_validate(spec)
    teachers = [bench.take("teacher0"), bench.take("teacher1")]
    student = distill.take_student(bench, parsed, teachers[0])
    with torch.no_grad():
        teachers[1].model.classifier.weight.mul_(-1)  # type: ignore[union-attr]
    student.model.eval()
    images, _ = bench.data.train.read(torch.arange(5))
    batch = Batch(images, bench.data.train.labels[:5], torch.arange(5), 1.0)
    lesson = distill.Lesson(parsed, bench.task, teachers, student, None, CPU, field="f")
    scores = [found.model(*found.description.preprocessing(images)) for found in (student, *teachers)]
    expected = 0.75 * kd.loss(scores[0], scores[1], batch.targets, 2.0) + 0.25 * kd.loss(scores[0], scores[2], batch.targets, 2.0)
    torch.testing.assert_close(lesson.objective(student.model, batch), expected)


@pytest.mark.parametrize("loss", [loss for loss in DistillLoss if loss is not DistillLoss.KD])
def test_every_loss_teaches_and_leaves_a_plain_student(loss: DistillLoss, run_stage: RunStage) -> None:
    """The student learns by it, and no projector is left in its bundle."""
    spec = {"teachers": [{"from": "source"}], "student": STUDENT, "epochs": 2, "learningRate": 1e-2, "alpha": 0.3, "batchSize": 32}
    on = registry.load("losses", loss, field="losses").ON
    mapping = [{"student": "second", "teacher": "second"}] if on == "features" else []
    output = run_stage({"distill": spec | {"losses": [{"type": "KD"}, {"type": loss}], "layerMapping": mapping}}, inputs={"teacher0": None})
    assert output.folder is not None
    assert output.metrics["accuracy"] > 0.3
    assert not any("projector" in name for name in bundle.read(output.folder).model.state_dict())


def test_dkd_is_kd_taken_apart() -> None:
    """With both parts weighed as KD weighs them they add up to KD: binary + (1 - teacher's p of the true class) * ranking."""
    student, teacher, targets = torch.randn(6, 5), torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    found = []
    for row in range(6):
        one = student[row : row + 1], teacher[row : row + 1], targets[row : row + 1]
        binary, ranked = (parts(*one, only=only) for only in ("target", "others"))
        share = 1 - float(torch.softmax(one[1], 1)[0, targets[row]])
        found.append(binary + share * ranked)
    assert sum(found) / 6 == pytest.approx(float(kd.loss(student, teacher, targets, 1.0)), rel=1e-4)


def parts(student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, *, only: str) -> float:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dkd, "TARGET", float(only == "target"))
        patch.setattr(dkd, "OTHERS", float(only == "others"))
        return float(dkd.loss(student, teacher, targets, 1.0))


def test_attention_and_relations_do_not_mind_scale_or_number_of_channels() -> None:
    features = torch.rand(4, 3, 6, 6)
    assert float(attention.loss(2 * features, features)) == pytest.approx(0, abs=1e-6)
    doubled = torch.cat([features, features], 1)
    assert float(attention.loss(doubled, features)) == pytest.approx(0, abs=1e-6)
    assert float(relational.loss(3 * features, features)) == pytest.approx(0, abs=1e-6)
    assert float(relational.loss(torch.rand(4, 3, 6, 6), features)) > 0


def test_layers_go_together_by_patience() -> None:
    student, teacher = ["s0", "s1"], ["t0", "t1", "t2", "t3"]
    assert taps.paired(student, teacher, "Skip") == [("s0", "t1"), ("s1", "t3")]
    assert taps.paired(student, teacher, "Last") == [("s0", "t2"), ("s1", "t3")]


def test_the_stages_of_a_resnet_and_the_layers_of_a_vit_are_found_by_themselves() -> None:
    from kompress_jobs import models

    sample = (torch.zeros(2, 3, 64, 64),)
    resnet = models.construct("torchvision://resnet18", {}, 10, "image-classification", field="f")
    assert taps.blocks(resnet, sample)[-4:] == ["layer1", "layer2", "layer3", "layer4"]
    for make, layers in ((tiny_models.vit, "blocks.{}"), (tiny_models.TransformersVit, "vit.vit.layers.{}")):
        found = taps.blocks(make(10), (torch.zeros(2, 1, 8, 8),))
        assert found == [layers.format(number) for number in range(2)]


def test_a_mapping_that_names_nothing_is_refused_by_its_place(run_stage: RunStage) -> None:
    spec = {"teachers": [{"from": "source"}], "student": STUDENT, "epochs": 1, "losses": [{"type": "Attention"}]}
    with pytest.raises(MethodRefused) as caught:
        run_stage({"distill": spec | {"layerMapping": [{"student": "third", "teacher": "second"}]}}, inputs={"teacher0": None})
    assert caught.value.field.endswith("distill.layerMapping[0].student")


@pytest.mark.parametrize("loss", [loss for loss in DistillLoss if registry.load("losses", loss, field="losses").ON == "features"])
def test_a_compiled_student_can_not_be_looked_into(loss: DistillLoss, run_stage: RunStage) -> None:
    spec = {"teachers": [{"from": "source"}], "student": STUDENT, "epochs": 1, "compile": True, "losses": [{"type": loss}]}
    with pytest.raises(MethodRefused, match="look inside the student") as caught:
        run_stage({"distill": spec}, inputs={"teacher0": None})
    assert caught.value.field.endswith("distill.compile")


KEPT = [0, 2]


def test_a_student_can_be_the_teacher_with_fewer_layers(run_stage: RunStage, tmp_path: Path) -> None:
    """It begins with the teacher's own weights in the layers that are kept, and its bundle can be read back without the teacher."""
    model = {"source": "python://tiny_models:residual"}
    tuned = run_stage({"fineTune": {"epochs": 1, "batchSize": 32}}, model=model)
    spec = {"teachers": [{"from": "source"}], "keepLayers": KEPT, "epochs": 1, "learningRate": 1e-9, "batchSize": 512}
    output = run_stage({"distill": spec}, model=model, inputs={"teacher0": tuned.folder}, scratch="distill")
    assert tuned.folder is not None and output.folder is not None
    teacher, student = bundle.read(tuned.folder).model, bundle.read(output.folder).model
    assert len(student.blocks) == len(KEPT) and len(teacher.blocks) == 3  # type: ignore[arg-type]
    for own, theirs in enumerate(KEPT):
        torch.testing.assert_close(student.blocks[own].inner.weight, teacher.blocks[theirs].inner.weight)  # type: ignore[index, union-attr]
    assert output.metrics["macs"] < tuned.metrics["macs"]


@pytest.mark.parametrize(
    ("name", "blocks", "says"),
    [("residual", [0, 3], "blocks has no block 3"), ("convolutional", [0], "no stack of equal blocks")],
)
def test_layers_that_the_teacher_does_not_have_are_refused(name: str, blocks: list[int], says: str, make_context: MakeContext) -> None:
    spec = {"teachers": [{"from": "source"}], "keepLayers": blocks, "epochs": 1}
    context = make_context({"distill": spec}, model={"source": f"python://tiny_models:{name}"}, inputs={"teacher0": None})
    with pytest.raises(MethodRefused, match=says) as caught:
        distill.run(context)
    assert caught.value.field == "spec.stages(stage).distill.keepLayers"
    assert caught.value.hint


def test_a_transformer_of_any_library_can_be_shortened(make_context: MakeContext) -> None:
    for name in ("vit", "torchvision_vit", "TransformersVit"):
        bench = Bench(make_context({"fineTune": {"epochs": 1}}, model={"source": f"python://tiny_models:{name}"}))
        teacher = bench.take("model")
        student = distill.shortened(teacher, [1], field="keepLayers")
        rebuilt = models.rebuild(student.description)
        assert {name for name, _ in rebuilt.named_parameters()} == {name for name, _ in student.model.named_parameters()}
        assert sum(p.numel() for p in student.model.parameters()) < sum(p.numel() for p in teacher.model.parameters())


def test_a_recipe_of_quantization_stays_with_the_teacher(make_context: MakeContext) -> None:
    """Its ranges are those of a graph that the shortened model does not have."""
    bench = Bench(make_context({"fineTune": {"epochs": 1}}, model={"source": "python://tiny_models:residual"}))
    teacher = redescribed(bench.take("model"), quantization={"quantizer": "onnx_runtime", "ranges": {"x": [0, 1]}})
    assert distill.shortened(teacher, [0], field="keepLayers").description.quantization is None


def test_a_stage_names_one_origin_of_its_student() -> None:
    spec = {"teachers": [{"from": "source"}], "epochs": 1}
    for origin in ({"student": STUDENT}, {"keepLayers": [0]}):
        assert Stage.model_validate({"name": "a", "distill": spec | origin}).distill is not None
        with pytest.raises(ValueError, match="exactly one of"):
            Stage.model_validate({"name": "a", "from": "source", "distill": spec | origin})
