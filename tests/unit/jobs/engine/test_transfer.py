"""Weights from elsewhere: a state dict fits its architecture whole, a backbone is taken over in part, and what was left is said."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kompress_api.errors import ArtifactCorrupt, ArtifactMissing, InvalidManifest, MethodRefused, UnsafeFile
from kompress_api.places import ModelSource, Output, WeightSource
from kompress_jobs.description import Loaded
from kompress_jobs.loading import assemble, bundle, transfer
from kompress_jobs.samples.splits import Data
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.store import open_store

TINY = "python://tiny_models:convolutional"
RESIDUAL = "python://tiny_models:residual"


def load(digits: Data, folder: Path, **source: Any) -> Loaded:
    asked = ModelSource.model_validate(source)
    return assemble.load_source(asked, digits, "image-classification", 0, folder / "scratch", field="spec.model")


def saved(model: nn.Module, path: Path, prefix: str = "") -> str:
    """A file as another tool would leave it; its URI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({prefix + name: tensor.contiguous() + 1 for name, tensor in model.state_dict().items()}, path)
    return path.as_uri()


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
@pytest.mark.parametrize("architecture", [TINY, "timm://test_resnet", "torchvision://shufflenet_v2_x0_5"])
def test_a_plain_state_dict_is_the_architecture_with_its_weights(architecture: str, prefix: str, digits: Data, tmp_path: Path) -> None:
    import dataclasses

    big = dataclasses.replace(digits, image_size=32)
    made = load(big, tmp_path, source=architecture)
    uri = saved(made.model, tmp_path / "weights.safetensors", prefix)
    found = load(big, tmp_path, source=uri, architecture=architecture)
    assert found.fresh == ()
    for name, tensor in made.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor + 1), name
    bundle.write(tmp_path / "bundle", found.model, found.description)
    sample = found.description.preprocessing.sample()
    assert torch.equal(bundle.read(tmp_path / "bundle").model(*sample), found.model.eval()(*sample))


def test_a_state_dict_for_other_labels_gives_all_but_the_head(digits: Data, tmp_path: Path) -> None:
    import tiny_models

    uri = saved(tiny_models.convolutional(1000), tmp_path / "imagenet.safetensors")
    found = load(digits, tmp_path, source=uri, architecture=TINY)
    assert found.fresh == ("classifier.bias", "classifier.weight")
    assert found.model.classifier.weight.shape == (10, 32)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("width", "lacks"), [(8, r"lacks first\.weight"), (16, r"holds layers\.1\.bias, .*, which the model does not have")]
)
def test_a_state_dict_of_another_architecture_is_refused_by_its_weights(width: int, lacks: str, digits: Data, tmp_path: Path) -> None:
    import tiny_models

    model = tiny_models.convolutional(10, width=8) if width == 8 else tiny_models.normless(10)
    with pytest.raises(MethodRefused, match=lacks) as caught:
        load(digits, tmp_path, source=saved(model, tmp_path / "other.safetensors"), architecture=TINY)
    assert caught.value.field == "spec.model.architecture"


def test_a_state_dict_with_more_than_the_architecture_has_is_refused(digits: Data, tmp_path: Path) -> None:
    """The first layers of a deeper model fit by name and shape, and would answer something else."""
    import tiny_models

    model = tiny_models.convolutional(10)
    model.third = nn.Conv2d(32, 32, 3)
    with pytest.raises(MethodRefused, match=r"it holds third\.bias, third\.weight, which the model does not have"):
        load(digits, tmp_path, source=saved(model, tmp_path / "deeper.safetensors"), architecture=TINY)


@pytest.mark.parametrize(
    ("source", "more", "error", "says"),
    [
        ("{folder}/weights.safetensors", {}, ArtifactMissing, "does not say of which model"),
        ("{folder}/torn.safetensors", {"architecture": TINY}, ArtifactCorrupt, "torn.safetensors is no safetensors file"),
        ("{folder}/weights.safetensors", {"architecture": TINY, "pretrained": True}, InvalidManifest, "pretrained would be ignored"),
        ("{folder}/weights.pt", {"architecture": TINY}, UnsafeFile, "pickle"),
        ("{folder}/pickled", {"architecture": TINY}, UnsafeFile, r"pytorch_model\.bin is a pickle"),
        ("{folder}/none", {"architecture": TINY}, ArtifactMissing, "no bundle, no .safetensors file"),
        (TINY, {"architecture": TINY}, InvalidManifest, "architecture would be ignored"),
    ],
)
def test_what_is_no_state_dict_is_answered_with_what_it_is(
    source: str, more: dict[str, Any], error: type[Exception], says: str, digits: Data, tmp_path: Path
) -> None:
    import tiny_models

    saved(tiny_models.convolutional(10), tmp_path / "weights.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes()[:100])
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled/pytorch_model.bin").write_bytes(b"")
    with pytest.raises(error, match=says):
        load(digits, tmp_path, source=source.format(folder=tmp_path.as_uri()), **more)


def test_a_backbone_moves_to_another_architecture_under_other_names(digits: Data, tmp_path: Path) -> None:
    """A user's detector keeps a `Residual` as `body.net`: its blocks come over, its head does not, and both are said."""
    import tiny_models

    made = tiny_models.residual(3)
    uri = saved(made, tmp_path / "detector.safetensors", "body.net.")
    weights = [{"source": uri, "include": ["body.net.*"], "exclude": ["*.blocks.2"], "rename": {"body.net.": ""}}]
    found = load(digits, tmp_path, source=RESIDUAL, weights=weights)
    state = made.state_dict()
    for name, tensor in found.model.state_dict().items():
        moved = not name.startswith(("blocks.2", "classifier"))
        assert torch.equal(tensor, state[name] + 1) == moved, name
    (told,) = found.told
    assert "were not asked for" in told
    assert "of another shape were left out: classifier.bias (3, here 10), classifier.weight (3x8, here 10x8)" in told
    assert "blocks.2.inner.weight" in told


def test_a_bundle_gives_weights_too_and_they_are_no_longer_fresh(digits: Data, tmp_path: Path) -> None:
    import tiny_models

    made = load(digits, tmp_path, source=TINY)
    bundle.write(tmp_path / "made", made.model, made.description)
    (tmp_path / "output").mkdir()
    store = open_store(Output(uri=f"file://{tmp_path}/output"), "output")
    uri = artifacts.commit(store, "a" * 64, "uid", 1, tmp_path / "made", {}, {}, ()).uri
    other = saved(tiny_models.convolutional(7), tmp_path / "seven.safetensors")
    found = load(digits, tmp_path, source=other, architecture=TINY, weights=[{"source": uri, "include": ["classifier"]}])
    assert found.fresh == ()
    assert torch.equal(found.model.classifier.weight, made.model.classifier.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"include": ["encoder.*"]}, r"none of the 14 weights .* matches include and exclude: it holds classifier\.bias"),
        ({"rename": {"": "net."}}, r"has a name of the model: they are net\."),
        ({"include": ["classifier"]}, r"of another shape are classifier\.bias \(7, here 10\)"),
    ],
)
def test_where_nothing_fits_the_names_and_shapes_of_both_are_told(more: dict[str, Any], says: str, digits: Data, tmp_path: Path) -> None:
    import tiny_models

    uri = saved(tiny_models.convolutional(7), tmp_path / "seven.safetensors")
    with pytest.raises(MethodRefused, match=says) as caught:
        load(digits, tmp_path, source=TINY, weights=[{"source": uri} | more])
    assert caught.value.field == "spec.model.weights[0]"


def test_of_two_beginnings_the_longer_one_is_exchanged() -> None:
    asked = WeightSource.model_validate({"source": "file:///x", "rename": {"": "net.", "encoder.": "body."}})
    assert transfer.renamed("encoder.layer", asked.rename) == "body.layer"
    assert transfer.renamed("head.weight", asked.rename) == "net.head.weight"
