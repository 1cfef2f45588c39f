"""The stage fuse: several models in, one out, as good as it says and rebuilt from its bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kompress_api.errors import LabelMismatch, MethodRefused
from kompress_jobs.bench import Bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import Loaded
from kompress_jobs.loading import bundle
from kompress_jobs.modules import batch_norm
from kompress_jobs.modules.history import replay

MakeContext = Callable[..., StageContext]
RunStage = Callable[..., StageOutput]
TRAINING = {"epochs": 2, "batchSize": 32, "learningRate": 1e-2}
WIDE, SLIM = ({"source": "python://tiny_models:convolutional", "arguments": {"width": width}} for width in (16, 8))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles: `left` and `right` learned from one beginning, `slim` is another architecture."""
    from stage_contexts import build_context

    from kompress_jobs.stages import fine_tune

    made = {}
    for name, model, seed in (("start", WIDE, 0), ("slim", SLIM, 0)):
        made[name] = learned(build_context, fine_tune, tmp_path_factory.mktemp(name), model, seed, None)
    for name, seed in (("left", 1), ("right", 2)):
        made[name] = learned(build_context, fine_tune, tmp_path_factory.mktemp(name), WIDE, seed, made["start"])
    return made


def learned(build_context: Any, fine_tune: Any, folder: Path, model: dict[str, Any], seed: int, start: Path | None) -> Path:
    context = build_context(folder, {"fineTune": TRAINING}, model=model, seed=seed, inputs={"model": start})
    found = fine_tune.run(context).folder
    assert found is not None
    return found


def models_of(method: str, count: int, **spec: Any) -> dict[str, Any]:
    return {"fuse": {"method": method, "models": [{"from": "source"}] * count, **spec}}


def accuracy(folder: Path) -> float:
    return bundle.describe(folder).metrics["accuracy"]


@pytest.mark.parametrize("method", ["UniformSoup", "GreedySoup", "Linear", "SLERP", "TaskArithmetic", "TIES", "DARE"])
def test_models_of_one_beginning_become_one_that_knows_as_much(method: str, tuned: dict[str, Path], run_stage: RunStage) -> None:
    """Their mean lies in the same valley: not worse than the weaker one by more than noise."""
    with_base = method in ("TaskArithmetic", "TIES", "DARE")
    spec = {"base": "source", "scaling": 0.5, "density": 0.8} if with_base else {}
    inputs = {"model0": tuned["left"], "model1": tuned["right"]} | ({"base": tuned["start"]} if with_base else {})
    output = run_stage(models_of(method, 2, **spec), inputs=inputs)
    assert output.folder is not None
    assert output.metrics["accuracy"] > min(accuracy(tuned["left"]), accuracy(tuned["right"])) - 0.05
    assert output.metrics["parameters"] == bundle.describe(tuned["left"]).metrics["parameters"]


def test_an_ensemble_of_unlike_architectures_answers_with_the_mean_and_comes_back_from_its_bundle(
    tuned: dict[str, Path], run_stage: RunStage
) -> None:
    output = run_stage(models_of("Ensemble", 2), inputs={"model0": tuned["left"], "model1": tuned["slim"]})
    assert output.folder is not None
    images = (torch.randn(3, 1, 8, 8),)
    expected = sum(bundle.read(tuned[name]).model(*images).softmax(1) for name in ("left", "slim")) / 2
    torch.testing.assert_close(bundle.read(output.folder).model(*images).exp(), expected)
    assert output.metrics["parameters"] > accuracy(tuned["left"])


def test_a_learned_head_begins_as_the_mean_and_only_it_learns(tuned: dict[str, Path], run_stage: RunStage) -> None:
    spec = models_of("Ensemble", 2, head="Learned", training={"epochs": 1, "batchSize": 64, "learningRate": 1e-3})
    output = run_stage(spec, inputs={"model0": tuned["left"], "model1": tuned["right"]})
    assert output.folder is not None
    found = bundle.read(output.folder).model
    member = found.members[0].state_dict()  # type: ignore[union-attr, operator]
    for name, tensor in bundle.read(tuned["left"]).model.state_dict().items():
        assert torch.equal(tensor, member[name]), name
    assert output.metrics["accuracy"] > 0.5


def test_other_architectures_and_labels_are_refused_by_the_model_s_place(
    tuned: dict[str, Path], run_stage: RunStage, tmp_path: Path
) -> None:
    with pytest.raises(MethodRefused, match="architecture") as caught:
        run_stage(models_of("UniformSoup", 2), inputs={"model0": tuned["left"], "model1": tuned["slim"]})
    assert caught.value.field.endswith("models[1]")
    found = bundle.read(tuned["left"])
    turned = found.description.model_copy(update={"labels": found.description.labels[::-1]})
    bundle.write(tmp_path / "turned", found.model, turned)
    with pytest.raises(LabelMismatch):
        run_stage(models_of("Ensemble", 2), inputs={"model0": tuned["left"], "model1": tmp_path / "turned"}, scratch="other")


def test_a_learned_head_without_training_is_refused(tuned: dict[str, Path], run_stage: RunStage) -> None:
    with pytest.raises(MethodRefused) as caught:
        run_stage(models_of("Ensemble", 2, head="Learned"), inputs={"model0": tuned["left"], "model1": tuned["right"]})
    assert caught.value.field.endswith("fuse.training")


def test_statistics_taken_anew_mend_a_model_whose_own_are_wrong(tuned: dict[str, Path], make_context: MakeContext) -> None:
    bench = Bench(make_context({"fineTune": TRAINING}, inputs={"model": tuned["left"]}))
    found = bench.take("model")
    before = bench.score(found, bench.data.validation, intervals=False).values["accuracy"]
    for norm in batch_norm.norms(found.model):
        norm.running_mean.fill_(5.0)  # type: ignore[union-attr]
    broken = bench.score(found, bench.data.validation, intervals=False).values["accuracy"]
    batch_norm.reestimate(found.model, bench.data.train, found.description.preprocessing, bench.gang)
    mended = bench.score(found, bench.data.validation, intervals=False).values["accuracy"]
    assert broken < before - 0.2
    assert mended > before - 0.05


@pytest.mark.parametrize("name", ["torchvision://resnet18", "timm://resnet10t", "timm://mobilenetv3_small_050"])
def test_folded_norms_give_the_same_answers_and_can_be_folded_again(name: str, tmp_path: Path) -> None:
    from kompress_jobs import models
    from kompress_jobs.preprocessing.image import Preprocessing

    images = Preprocessing(image_size=32, channels=3, mean=[0.5] * 3, std=[0.5] * 3)
    build = lambda: models.construct(name, {}, 10, "image-classification", field="f").eval()  # noqa: E731
    model = build()
    for norm in batch_norm.norms(model):
        nn.init.normal_(norm.running_mean, std=0.1)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    question = torch.randn(2, 3, 32, 32)
    before = model(question)
    change = batch_norm.fold(model, images.sample(), field="f")
    assert change is not None
    assert len(change["pairs"]) > 10
    assert batch_norm.norms(model) == []
    torch.testing.assert_close(model(question), before, atol=1e-3, rtol=1e-3)
    again = replay(build(), [change], images.sample())
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(question), model(question))


def test_a_convolution_whose_output_is_used_twice_is_not_folded() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = self.convolution(images)
            return (self.norm(found) + found).mean((2, 3))

    model = Shared().eval()
    nn.init.constant_(model.norm.running_mean, 3.0)  # type: ignore[arg-type]
    with pytest.raises(MethodRefused, match="two places"):
        batch_norm.fold(model, (torch.zeros(2, 1, 4, 4),), field="f")


def test_a_folded_model_ships_in_its_bundle(tuned: dict[str, Path], run_stage: RunStage) -> None:
    inputs = {"model0": tuned["left"], "model1": tuned["right"]}
    output = run_stage(models_of("UniformSoup", 2, foldBatchNorm=True), inputs=inputs)
    assert output.folder is not None
    found: Loaded = bundle.read(output.folder)
    assert batch_norm.norms(found.model) == []
    assert found.description.history[-1]["change"] == "fold_batch_norm"
