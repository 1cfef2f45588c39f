"""Models with heads that answer in training only, and sizes of their own: Inception v3 and GoogLeNet as torchvision has them."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from kompress_api.errors import MethodRefused
from kompress_api.places import ModelSource
from kompress_api.training import Training
from kompress_jobs.description import Loaded
from kompress_jobs.loading import assemble, bundle
from kompress_jobs.models import IMAGENET_MEAN, IMAGENET_STD
from kompress_jobs.models import torchvision as library
from kompress_jobs.modules import structure
from kompress_jobs.rehearsal.rehearse import Room
from kompress_jobs.samples.splits import Data, MemorySplit
from kompress_jobs.tasks import image_classification
from kompress_jobs.training import objective

TASK = "image-classification"


def few(digits: Data, side: int, labels: int = 10) -> Data:
    """Four digits of a side, with so many labels."""
    images, _ = digits.train.read(torch.arange(4))
    assert isinstance(images, torch.Tensor)
    split = MemorySplit(interpolate(images, side).repeat(1, 3, 1, 1), torch.arange(4) % labels)
    return dataclasses.replace(
        digits, labels=[str(label) for label in range(labels)], train=split, validation=split, test=split, image_size=side, channels=3
    )


def load(data: Data, folder: Path, source: str) -> Loaded:
    return assemble.load_source(ModelSource(source=source), data, TASK, 0, folder, field="spec.model")


def step(found: Loaded, data: Data, folder: Path) -> None:
    """As the preflight tries it."""
    learn = objective.task_objective(image_classification, found.description.preprocessing, smoothing=0.0, weight=None)
    Room(data, image_classification, TASK, 0, folder).step(found, learn, Training(), field="spec.stages[0].fineTune")


@pytest.fixture(scope="module")
def googlenet(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(few(digits, 64), tmp_path_factory.mktemp("googlenet"), "torchvision://googlenet")


def test_auxiliary_heads_learn_with_the_model_and_answer_nothing_afterwards(googlenet: Loaded, digits: Data, tmp_path: Path) -> None:
    data = few(digits, 64)
    outputs = googlenet.model.train()(*googlenet.description.preprocessing(data.train.read(torch.arange(4))[0]))
    assert [scores.shape for scores in outputs] == [(4, 10)] * 3
    whole = image_classification.loss(outputs, data.train.labels)
    parts = [nn.functional.cross_entropy(scores, data.train.labels) for scores in outputs]
    assert whole.item() == pytest.approx((parts[0] + 0.4 * (parts[1] + parts[2])).item(), rel=1e-5)
    step(googlenet, data, tmp_path)
    assert googlenet.model.eval()(*googlenet.description.preprocessing.sample()).shape == (2, 10)


@pytest.mark.parametrize("labels", [3, 12])
def test_for_other_labels_all_heads_are_new_and_the_bundle_comes_back(labels: int, googlenet: Loaded, digits: Data, tmp_path: Path) -> None:
    """An auxiliary head of ten outputs fails at the twelfth label, in mid-training."""
    data = few(digits, 64, labels)
    before = Loaded(load(few(digits, 64), tmp_path, "torchvision://googlenet").model, googlenet.description)
    found = assemble.with_labels(before, data, "Auto", field="spec.stages(a)")
    assert [change["module"] for change in found.description.history] == ["fc", "aux1.fc2", "aux2.fc2"]
    step(found, data, tmp_path)
    bundle.write(tmp_path / "bundle", found.model, found.description)
    sample = found.description.preprocessing.sample()
    again = bundle.read(tmp_path / "bundle").model
    assert torch.equal(again(*sample), found.model.eval()(*sample))
    assert [scores.shape[1] for scores in again.train()(*sample)] == [labels] * 3


def test_inception_is_refused_at_224_with_the_size_that_it_takes_and_learns_there(digits: Data, tmp_path: Path) -> None:
    """Its auxiliary head has a kernel of its own that smaller images do not fill; evaluation would not notice."""
    small = few(digits, 224)
    found = load(small, tmp_path, "torchvision://inception_v3")
    with pytest.raises(MethodRefused) as caught:
        step(found, small, tmp_path)
    assert caught.value.hint == "set dataset.imageSize: 299, which it takes"
    fitting = few(digits, 299)
    refitted = assemble.with_labels(found, fitting, "Auto", field="spec.model")
    assert structure.heads_of(found.model, refitted.description.preprocessing.sample()) == ["fc", "AuxLogits.fc"]
    step(refitted, fitting, tmp_path)


def test_images_that_are_too_small_are_answered_with_a_size(digits: Data, tmp_path: Path) -> None:
    with pytest.raises(MethodRefused, match="8x8 pixels") as caught:
        load(few(digits, 8), tmp_path, "torchvision://vgg11")
    assert caught.value.hint == "set dataset.imageSize: 32, which it takes"


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_pretrained_weights_get_images_on_the_scale_that_they_were_made_with(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision undoes ImageNet's normalisation inside these models, but only where it loads the weights itself."""
    from torchvision import models

    monkeypatch.setattr(type(models.get_model_weights(name).DEFAULT), "get_state_dict", lambda *_, **__: {})  # it downloads
    told = library.pretrained(name, {}, TASK, field="spec.model")
    images = torch.rand(2, 3, 32, 32)

    def normalised(mean: list[float], std: list[float]) -> torch.Tensor:
        return (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    undone = models.GoogLeNet(init_weights=False, transform_input=True)._transform_input(normalised(IMAGENET_MEAN, IMAGENET_STD))
    assert torch.allclose(undone, normalised(told.mean, told.std), atol=1e-6)
