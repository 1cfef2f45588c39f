"""What lies behind a URI has one digest, which changes when it does."""

import os
from pathlib import Path

import pytest

from kompress_api.errors import ArtifactMissing, DataUnreadable, UnknownModel
from kompress_api.places import Dataset, ModelSource
from kompress_api.stages.stage import Stage
from kompress_jobs.planning import code_version, fingerprint
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.file import FileStore


def folder_of(path: Path) -> Dataset:
    return Dataset(source=path.as_uri(), format="imagefolder")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("train/cat/1.png", "train/dog/1.png", "test/cat/2.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_text(name)
    return tmp_path / "images"


def test_a_small_folder_is_known_by_its_content_wherever_it_lies(images: Path, tmp_path: Path) -> None:
    before = fingerprint.fingerprint(folder_of(images))
    assert (before.means, before.files, before.size) == ("content", 3, sum(path.stat().st_size for path in images.rglob("*.png")))
    os.utime(images / "train/cat/1.png", (0, 0))
    images.rename(tmp_path / "moved")
    assert fingerprint.fingerprint(folder_of(tmp_path / "moved")) == before


@pytest.mark.parametrize("change", ["content", "name", "more", "less"])
def test_any_change_of_a_folder_is_seen(images: Path, change: str) -> None:
    before = fingerprint.fingerprint(folder_of(images))
    match change:
        case "content":
            (images / "train/cat/1.png").write_text("train/cat/2.png")
        case "name":
            (images / "train/cat/1.png").rename(images / "train/dog/3.png")
        case "more":
            (images / "train/cat/9.png").touch()
        case _:
            (images / "train/cat/1.png").unlink()
    assert fingerprint.fingerprint(folder_of(images)).digest != before.digest


def test_a_large_folder_is_known_by_sizes_and_times(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "CONTENT_LIMIT", 10)
    before = fingerprint.fingerprint(folder_of(images))
    assert before.means == "mtime"
    assert fingerprint.fingerprint(folder_of(images)) == before
    os.utime(images / "train/cat/1.png", ns=(0, 1))
    assert fingerprint.fingerprint(folder_of(images)).digest != before.digest


def test_an_empty_place_is_refused_by_its_field(tmp_path: Path) -> None:
    with pytest.raises(DataUnreadable, match="is empty") as refused:
        fingerprint.fingerprint(folder_of(tmp_path / "nothing"))
    assert refused.value.field == "spec.dataset.source"


def test_what_the_library_ships_is_known_by_the_librarys_version() -> None:
    assert fingerprint.fingerprint(Dataset(source="builtin://digits")).means == "library"


def test_a_bundle_is_known_by_its_commit_and_a_file_by_its_content(tmp_path: Path) -> None:
    store = FileStore((tmp_path / "output").as_uri())
    (tmp_path / "made").mkdir()
    (tmp_path / "made/model.safetensors").write_bytes(b"weights")
    commit = artifacts.commit(store, "ab" * 32, "uid", 1, tmp_path / "made", {}, {}, [])
    assert fingerprint.resolve(ModelSource(source=commit.uri)) == {"source": f"commit {commit.digest}"}
    file = ModelSource(source=(tmp_path / "made/model.safetensors").as_uri(), architecture="timm://resnet18")
    before = fingerprint.resolve(file)
    assert before["architecture"].startswith("timm 1.")
    (tmp_path / "made/model.safetensors").write_bytes(b"changed")
    assert fingerprint.resolve(file)["source"] != before["source"]


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match="nothing does not exist"):
        fingerprint.resolve(ModelSource(source=(tmp_path / "nothing").as_uri()))


def test_a_users_factory_is_known_by_the_sources_of_its_package_and_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_models_of_the_test"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "nets.py").write_text("def small(): ...")
    monkeypatch.syspath_prepend(tmp_path)
    source = ModelSource(source="python://my_models_of_the_test.nets:small")
    before = fingerprint.resolve(source)
    code_version.package_sources.cache_clear()
    assert fingerprint.resolve(source) == before
    (package / "nets.py").write_text("def small(): pass")
    code_version.package_sources.cache_clear()
    assert fingerprint.resolve(source) != before
    with pytest.raises(UnknownModel, match="no package 'not_there'"):
        fingerprint.resolve(ModelSource(source="python://not_there.nets:small"))


def test_the_code_version_holds_every_factory_that_a_stage_reaches() -> None:
    stage = Stage.model_validate(
        {
            "name": "student",
            "distill": {"teachers": [{"from": "source"}], "student": {"source": "python://students.small:net"}, "epochs": 1},
        }
    )
    dataset, model = Dataset(source="python://data_sets:load"), ModelSource(source="s3://b/k", architecture="python://models.big:net")
    assert code_version.factories_of(model, dataset, stage) == {"students", "data_sets", "models"}


def test_libraries_count_by_their_minor_version() -> None:
    found = code_version.libraries()
    assert {"torch", "timm", "onnx"} <= set(found)
    assert all(version.count(".") == 1 for version in found.values())
