"""hf:// beyond texts: an image model is built for the data's labels and prepared as its repository says."""

import json
from pathlib import Path

import pytest
import torch

from kompress_api.errors import MethodRefused
from kompress_api.places import ModelSource
from kompress_jobs.description import Loaded
from kompress_jobs.loading import assemble, bundle
from kompress_jobs.samples.splits import Data

CONFIG = {
    "model_type": "vit",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 4,
}


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    from transformers import ViTConfig, ViTForImageClassification

    folder = tmp_path / "vit"
    ViTForImageClassification(ViTConfig.from_dict(CONFIG)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.25, 0.5], "image_std": [0.5, 0.5, 0.5]}))
    return folder


def load(read: Data, folder: Path, **source: object) -> Loaded:
    return assemble.load_source(ModelSource.model_validate(source), read, "image-classification", 0, folder, field="spec.model")


def test_a_vision_transformer_takes_over_its_weights_and_its_normalisation(digits: Data, vit: Path, tmp_path: Path) -> None:
    found = load(digits, tmp_path, source=f"hf://{vit}", pretrained=True)
    assert found.fresh == ("classifier.bias", "classifier.weight")
    assert found.description.preprocessing.mean == [0.5, 0.25, 0.5]  # type: ignore[attr-defined]
    bundle.write(tmp_path / "bundle", found.model, found.description)
    again = bundle.read(tmp_path / "bundle")
    inputs = again.description.preprocessing(digits.test.read(torch.arange(3))[0])
    assert torch.equal(again.model(*inputs), found.model.eval()(*inputs))
    assert again.model(*inputs).shape == (3, 10)


def test_images_of_another_size_are_refused_in_the_model_s_words(digits: Data, vit: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodRefused, match=r"8x8 pixels.*16") as caught:
        load(digits, tmp_path, source=f"hf://{vit}", arguments={"image_size": 16})
    assert "imageSize" in caught.value.hint
