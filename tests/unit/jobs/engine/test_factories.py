"""Only the packages that the image allows are ever imported, whoever names them."""

import sys

import pytest

from kompress_api.errors import FactoryNotAllowed, InvalidManifest, UnknownModel
from kompress_jobs import factories, models


def test_nothing_outside_of_the_allowed_packages_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    sys.modules.pop("antigravity", None)
    with pytest.raises(FactoryNotAllowed, match="tiny_models") as caught:
        factories.resolve("antigravity:geohash", field="spec.model.source")
    assert "antigravity" not in sys.modules
    assert "KOMPRESS_FACTORIES=antigravity" in caught.value.hint
    monkeypatch.setenv("KOMPRESS_FACTORIES", "tiny")
    with pytest.raises(FactoryNotAllowed):
        factories.resolve("tiny_models:convolutional", field="spec.model.source")


def test_a_factory_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("tiny_models:missing", "tiny_models.missing:x"):
        with pytest.raises(UnknownModel, match="missing"):
            factories.resolve(address, field="spec.model.source")


def test_arguments_that_do_not_fit_are_refused_with_the_signature() -> None:
    with pytest.raises(InvalidManifest, match="widht") as caught:
        models.construct("python://tiny_models:convolutional", {"widht": 4}, 10, "image-classification", field="spec.model")
    assert caught.value.field == "spec.model.arguments"
