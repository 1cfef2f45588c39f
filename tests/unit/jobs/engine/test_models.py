"""Model sources: what is built, and how a wrong one is answered."""

import dataclasses
from pathlib import Path

import pytest
import torch

from kompress_api.errors import ArtifactCorrupt, ArtifactMissing, InvalidManifest, LabelMismatch, MethodRefused, UnknownModel, UnsafeFile
from kompress_api.places import ModelSource, Output
from kompress_jobs.description import WEIGHTS, Loaded
from kompress_jobs.loading import assemble, bundle
from kompress_jobs.samples.splits import Data
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.store import open_store


def load(digits: Data, folder: Path, head: assemble.Head = "Auto", **source: object) -> Loaded:
    return assemble.load_source(
        ModelSource.model_validate(source), digits, "image-classification", 0, folder, field="spec.model", head=head
    )


@pytest.mark.parametrize("source", ["torchvision://shufflenet_v2_x0_5", "timm://test_resnet", "python://tiny_models:convolutional"])
def test_a_library_model_gets_the_data_s_labels_and_the_same_weights_for_the_same_seed(source: str, digits: Data, tmp_path: Path) -> None:
    big = dataclasses.replace(digits, image_size=32)
    first, again = load(big, tmp_path, source=source), load(big, tmp_path, source=source)
    scores = first.model.eval()(*first.description.preprocessing.sample())
    assert scores.shape == (2, 10)
    assert first.description.labels == digits.labels
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_the_model_decides_between_grey_and_colour(digits: Data, tmp_path: Path) -> None:
    assert load(digits, tmp_path, source="python://tiny_models:convolutional").description.preprocessing.channels == 1
    assert load(digits, tmp_path, source="torchvision://resnet18").description.preprocessing.channels == 3


@pytest.mark.parametrize(
    ("source", "near"), [("torchvision://resnet81", "torchvision://resnet18"), ("timm://resnet10x", "timm://resnet10t")]
)
def test_an_unknown_model_is_answered_with_near_ones(source: str, near: str, digits: Data, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel) as caught:
        load(digits, tmp_path, source=source)
    assert near in caught.value.hint
    assert caught.value.field == "spec.model.source"


def test_wrong_arguments_of_a_library_are_refused(digits: Data, tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match="depht"):
        load(digits, tmp_path, source="torchvision://resnet18", arguments={"depht": 3})


def test_images_that_the_model_can_not_take_are_refused_in_its_words(digits: Data, tmp_path: Path) -> None:
    with pytest.raises(MethodRefused, match="8x8") as caught:
        load(digits, tmp_path, source="python://tiny_models:broken")
    assert "imageSize" in caught.value.hint


def test_a_factory_with_other_outputs_gets_a_new_head_that_its_bundle_can_rebuild(digits: Data, tmp_path: Path) -> None:
    found = load(digits, tmp_path, source="python://tiny_models:seven_classes")
    bundle.write(tmp_path / "bundle", found.model, found.description)
    again = bundle.read(tmp_path / "bundle")
    images = torch.randn(3, 1, 8, 8)
    assert again.model(images).shape == (3, 10)
    assert torch.equal(again.model(images), found.model.eval()(images))


def committed(found: Loaded, folder: Path) -> artifacts.Commit:
    bundle.write(folder / "made", found.model, found.description)
    (folder / "output").mkdir()
    return artifacts.commit(open_store(Output(uri=f"file://{folder}/output"), "output"), "a" * 64, "uid", 1, folder / "made", {}, {}, ())


def test_a_committed_bundle_is_a_model_source_and_other_labels_need_a_new_head(digits: Data, tmp_path: Path) -> None:
    found = load(digits, tmp_path, source="python://tiny_models:convolutional")
    uri = committed(found, tmp_path).uri
    again = load(digits, tmp_path, source=uri)
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(again.model.eval()(images), found.model.eval()(images))
    letters = dataclasses.replace(digits, labels=["a", "b", "c"])
    assert load(letters, tmp_path, source=uri).model.eval()(images).shape == (3, 3)
    with pytest.raises(LabelMismatch, match="10 labels"):
        load(letters, tmp_path, head="Keep", source=uri)


def test_a_bundle_without_commit_or_with_a_changed_byte_is_never_loaded(digits: Data, tmp_path: Path) -> None:
    found = load(digits, tmp_path, source="python://tiny_models:convolutional")
    uri = committed(found, tmp_path).uri
    with pytest.raises(ArtifactMissing, match="no commit"):
        load(digits, tmp_path, source=f"file://{tmp_path}/made")
    weights = Path(uri.removeprefix("file://")) / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o600)
    weights.write_bytes(content)
    with pytest.raises(ArtifactCorrupt, match=r"model\.safetensors"):
        load(digits, tmp_path / "fresh", source=uri)


def test_a_pickle_is_refused_by_its_name_and_never_read(digits: Data, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save(Trap(), tmp_path / "model.pt")
    with pytest.raises(UnsafeFile, match=r"model\.pt"):
        load(digits, tmp_path, source=f"file://{tmp_path}/model.pt")
    with pytest.raises(UnsafeFile, match=r"model\.pt"):
        bundle.read(tmp_path)
    assert not (tmp_path / "executed").exists()
