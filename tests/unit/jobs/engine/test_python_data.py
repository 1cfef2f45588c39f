"""python:// data: whatever a user's factory returns becomes samples of the same kind as files do, and what it may not return is said."""

from pathlib import Path

import numpy
import pytest
import soundfile
import torch

from kompress_api.errors import DataUnreadable, FactoryNotAllowed, InvalidManifest, UnknownModel
from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.planning import fingerprint
from kompress_jobs.samples import Clips
from kompress_jobs.samples.sound import RATE
from kompress_jobs.samples.splits import Data


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOMPRESS_FACTORIES", "tiny_data")


def load(tmp_path: Path, factory: str, first: int | None = None, **fields: object) -> Data:
    return data.load(Dataset.model_validate({"source": f"python://tiny_data:{factory}"} | fields), tmp_path, first=first)


@pytest.mark.parametrize("kind", ["grey", "colour", "tensor", "pillow"])
def test_images_of_every_library_are_the_same_samples(kind: str, tmp_path: Path) -> None:
    found = load(tmp_path, "load", arguments={"kind": kind})
    assert found.labels == ["dark", "light"]
    assert (found.image_size, found.channels) == (8, 3)
    assert (len(found.train), len(found.validation), len(found.test)) == (16, 2, 2)
    images, positions = found.train.read(torch.arange(16))
    assert isinstance(images, torch.Tensor)
    assert (images[:, 0, 0, 0] / 10 % 2).tolist() == found.train.labels[positions].tolist()


@pytest.mark.parametrize("kind", ["wave", "slower"])
def test_waves_come_at_one_rate(kind: str, tmp_path: Path) -> None:
    found = load(tmp_path, "load", arguments={"kind": kind}, clipSeconds=0.1)
    clips, _ = found.train.read(torch.arange(4))
    assert isinstance(clips, Clips)
    assert (found.sample_rate, found.clip_samples) == (RATE, 1600)
    assert clips.lengths.tolist() == [1600] * 4
    numbers = (clips.waves[:, 800] * 32 - 1).round().long()
    assert (numbers % 2).tolist() == found.train.labels[:4].tolist()


def test_texts_keep_their_labels(tmp_path: Path) -> None:
    found = load(tmp_path, "load", arguments={"kind": "text"})
    texts, _ = found.train.read(torch.arange(16))
    assert [int(text.split()[1]) % 2 for text in texts] == found.train.labels.tolist()  # type: ignore[union-attr]


def test_paths_are_read_as_files(tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    for number in range(20):
        soundfile.write(tmp_path / f"sounds/{['high', 'low'][number % 2]}-{number}.wav", numpy.full(1600, 0.5), RATE)
    found = load(tmp_path, "files", arguments={"folder": str(tmp_path / "sounds")})
    assert (found.labels, found.clip_samples) == (["high", "low"], RATE // 2)


def test_the_factory_s_splits_are_kept_and_a_large_set_is_read_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kompress_jobs.samples.images.IN_MEMORY_BYTES", 0)
    found = load(tmp_path, "splits", splits={"train": "learn", "test": "exam"}, imageSize=8)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [10, 10, 10]
    assert found.labels == ["0", "1"]
    lazy = found.train.encoded.files.samples  # type: ignore[attr-defined]
    before = lazy.made
    found.train.read(torch.arange(3))
    assert lazy.made == before + 3


def test_the_preflight_reads_a_few(tmp_path: Path) -> None:
    found = load(tmp_path, "load", arguments={"kind": "grey", "count": 400}, first=6)
    assert torch.bincount(found.train.labels).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("list", r"returned a list, not \{'train': \(samples, labels\), \.\.\.\}"),
        ("no train", "returned the keys test, not"),
        ("no pair", "split train .* is no pair of samples and labels"),
        ("short", "has 4 samples and 2 labels"),
        ("range", r"2 of 4 rows of split train can't be used.* train\[2\] \(no label, or one out of range\)"),
        ("nan", r"2 of 4 rows of split train can't be used.* train\[2\]"),
        ("kind", "are dicts: neither text, image nor sound"),
    ],
)
def test_what_a_factory_may_not_return_is_said(what: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataUnreadable, match=says) as caught:
        load(tmp_path, "wrong", arguments={"what": what})
    assert caught.value.field == "spec.dataset.source"


def test_a_factory_of_a_package_that_is_not_allowed_or_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownModel, match="nothing"):
        load(tmp_path, "nothing")
    with pytest.raises(InvalidManifest, match="do not fit load") as caught:
        load(tmp_path, "load", arguments={"kinds": "grey"})
    assert caught.value.field == "spec.dataset.arguments"
    monkeypatch.setenv("KOMPRESS_FACTORIES", "tiny_models")
    with pytest.raises(FactoryNotAllowed):
        load(tmp_path, "load", arguments={"kind": "grey"})


def test_its_fingerprint_is_that_of_its_sources() -> None:
    assert fingerprint.fingerprint(Dataset(source="python://tiny_data:load")).means == "sources"
