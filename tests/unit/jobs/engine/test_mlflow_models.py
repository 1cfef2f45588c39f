"""mlflow:// models: what a job registers is where the next job begins, and what can't be read is refused with the reason."""

import json
from pathlib import Path

import pytest
import torch

from kompress_api.contract import JobIdentity, StageInput
from kompress_api.errors import InvalidManifest, MethodRefused, StorageUnavailable, UnknownModel, UnsafeFile
from kompress_api.places import ModelSource, Output, Tracking
from kompress_jobs.description import Loaded
from kompress_jobs.loading import assemble, bundle
from kompress_jobs.planning import fingerprint
from kompress_jobs.report.publish import Publish
from kompress_jobs.samples.splits import Data
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.store import open_store
from kompress_jobs.tracking import publication
from kompress_jobs.tracking.mlflow import Mlflow

IMAGES = torch.randn(3, 1, 8, 8)


@pytest.fixture(autouse=True)
def own_server(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the worker sets from the stage's input."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)


def load(digits: Data, folder: Path, source: str, **more: object) -> Loaded:
    asked = ModelSource.model_validate({"source": source} | more)
    return assemble.load_source(asked, digits, "image-classification", 0, folder / "scratch", field="spec.model")


def registered(found: Loaded, name: str, database: str, folder: Path, uid: str) -> str:
    """As `report` does it; returns the version's number."""
    tracking = {"uri": database, "experiment": name, "registeredModel": name}
    bundle.write(folder / f"made-{uid}", found.model, found.description)
    store = open_store(Output(uri=f"file://{folder}/output"), "output")
    commit = artifacts.commit(store, uid.ljust(64, "0"), uid, 1, folder / f"made-{uid}", {"accuracy": 0.9}, {}, [])
    stage = StageInput.model_validate(
        {"job": {"name": "flowers", "uid": uid}, "kind": "report", "name": "report", "attempt": 1, "seed": 0, "evaluation": {}}
        | {"task": "image-classification", "model": {"source": "timm://resnet18"}, "dataset": {"source": "builtin://digits"}}
        | {"output": {"uri": store.uri}, "tracking": tracking, "spec": {}}
    )
    server = Mlflow(stage.tracking, stage.job, patience=5)
    wanted = Publish(summary={}, note="", succeeded=True, artifact=commit.uri, digest=commit.digest, metrics=commit.metrics)
    return publication.register(server, store, stage, wanted, server.open_parent(), name, folder / f"scratch-{uid}")


def test_what_a_job_registers_comes_back_by_alias_and_by_version_and_its_fingerprint_follows_the_alias(
    digits: Data, database: str, tmp_path: Path
) -> None:
    made = [load(digits, tmp_path, "python://tiny_models:convolutional", arguments={"width": width}) for width in (4, 8)]
    first = registered(made[0], "digits", database, tmp_path, "u-1")
    champion = ModelSource(source="mlflow://digits@kompress")
    before = fingerprint.resolve(champion)["source"]
    assert before.startswith(f"mlflow version {first} sha256:")
    assert fingerprint.resolve(ModelSource(source=f"mlflow://digits/{first}"))["source"] == before
    second = registered(made[1], "digits", database, tmp_path, "u-2")
    assert fingerprint.resolve(champion)["source"] != before
    for source, expected in (("mlflow://digits@kompress", made[1]), (f"mlflow://digits/{first}", made[0])):
        found = load(digits, tmp_path, source)
        assert torch.equal(found.model.eval()(IMAGES), expected.model.eval()(IMAGES))
        assert found.description.labels == digits.labels
    assert first != second


def test_weights_of_a_registered_model_are_taken_over_in_part(digits: Data, database: str, tmp_path: Path) -> None:
    version = registered(load(digits, tmp_path, "python://tiny_models:convolutional"), "backbone", database, tmp_path, "u-3")
    weights = [{"source": f"mlflow://backbone/{version}", "include": ["first"]}]
    found = load(digits, tmp_path, "python://tiny_models:convolutional", weights=weights)
    again = load(digits, tmp_path, f"mlflow://backbone/{version}")
    assert torch.equal(found.model.first.weight, again.model.first.weight)  # type: ignore[union-attr]
    assert "1 of the" in found.told[0]


def kept(database: str, name: str, folder: Path) -> None:
    """A version that was not made by kompress."""
    server = Mlflow(Tracking(uri=database), JobIdentity(name=name, uid=name), patience=5)
    server.client.create_registered_model(name)
    server.client.create_model_version(name, folder.as_uri())


def test_a_pickled_flavor_is_refused_and_never_read(digits: Data, database: str, tmp_path: Path) -> None:
    import mlflow.pytorch

    mlflow.pytorch.save_model(torch.nn.Linear(2, 2), str(tmp_path / "pickled"), serialization_format="pickle", pip_requirements=["torch"])
    kept(database, "pickled", tmp_path / "pickled")
    with pytest.raises(UnsafeFile, match=r"data/model\.pth, a pickle") as caught:
        load(digits, tmp_path, "mlflow://pickled/1")
    assert caught.value.field == "spec.model.source"
    with pytest.raises(UnsafeFile, match="pickle"):
        load(digits, tmp_path, "mlflow://pickled/1", architecture="python://tiny_models:convolutional")


def test_an_exported_model_is_refused_with_where_its_bundle_is(digits: Data, database: str, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export/export.json").write_text(json.dumps({}))
    kept(database, "exported", tmp_path / "export")
    with pytest.raises(MethodRefused, match="exported model") as caught:
        load(digits, tmp_path, "mlflow://exported/1")
    assert "bundle" in caught.value.hint


def test_a_model_version_or_address_that_is_not_there_is_answered_with_what_is(digits: Data, database: str, tmp_path: Path) -> None:
    registered(load(digits, tmp_path, "python://tiny_models:convolutional"), "flowers", database, tmp_path, "u-4")
    with pytest.raises(UnknownModel, match="no registered model 'flower'") as caught:
        load(digits, tmp_path, "mlflow://flower@kompress")
    assert "flowers" in caught.value.hint
    with pytest.raises(UnknownModel, match="has no version @champion") as caught:
        fingerprint.resolve(ModelSource(source="mlflow://flowers@champion"))
    assert caught.value.hint == "it has @flowers, @kompress, 1"
    assert caught.value.field == "spec.model.source"
    with pytest.raises(InvalidManifest, match="names no version"):
        load(digits, tmp_path, "mlflow://flowers")


def test_the_server_that_endpoint_names_is_asked(digits: Data, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(load(digits, tmp_path, "python://tiny_models:convolutional"), "elsewhere", database, tmp_path, "u-5")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert load(digits, tmp_path, "mlflow://elsewhere/1", endpoint=database).description.labels == digits.labels
    with pytest.raises(StorageUnavailable, match="127"):
        fingerprint.resolve(ModelSource(source="mlflow://elsewhere/1"), patience=0)
