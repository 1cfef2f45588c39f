"""Data sets: the same splits everywhere, and each bad input answered with its file."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from kompress_api.errors import DataUnreadable, InvalidManifest
from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.builtins import digits as builtin_digits
from kompress_jobs.samples import images
from kompress_jobs.samples.splits import Data, MemorySplit, cut

MakeFolder = Callable[..., Path]


def png(grey: int, side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (grey, grey, grey)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """<split>/<label>/<n>.png, each image of its own grey."""

    def make(splits: dict[str, list[str]], count: int = 10, side: int = 8) -> Path:
        root = tmp_path / "images"
        for split, labels in splits.items():
            for label in labels:
                folder = root / split / label
                folder.mkdir(parents=True)
                for index in range(count):
                    (folder / f"{index}.png").write_bytes(png(20 * index, side))
        return root

    return make


def load(root: Path, tmp_path: Path, **fields: object) -> Data:
    return data.load(Dataset.model_validate({"source": f"file://{root}", "format": "imagefolder"} | fields), tmp_path)


def test_the_digits_are_split_once_and_for_all(digits: Data) -> None:
    sizes = {name: len(getattr(digits, name)) for name in ("train", "validation", "test")}
    assert sizes == {"train": 1295, "validation": 143, "test": 359}
    assert digits.test.labels[:6].tolist() == [1, 7, 2, 3, 4, 8]
    for split in (digits.validation, digits.test):
        counts = torch.bincount(split.labels)
        assert counts.max() - counts.min() <= 3, "stratified"
    images, _ = digits.test.read(torch.arange(3))
    assert images.shape == (3, 1, 8, 8)
    assert images.max() == 255


def test_image_size_resizes_and_an_unknown_builtin_is_answered_with_the_known(tmp_path: Path) -> None:
    found = data.load(Dataset(source="builtin://digits", image_size=32), tmp_path)
    assert found.train.read(torch.arange(2))[0].shape == (2, 1, 32, 32)
    assert found.image_size == 32
    with pytest.raises(InvalidManifest, match="didgits") as caught:
        data.load(Dataset(source="builtin://didgits"), tmp_path)
    assert "builtin://digits" in caught.value.hint


def test_a_cut_is_stratified_and_a_new_sample_moves_few_others() -> None:
    names = [f"{index}.png" for index in range(200)]
    labels = [index % 2 for index in range(200)]
    kept, away = cut(names, labels, 0.1)
    assert len(away) == 20
    assert sum(labels[index] for index in away) == 10
    assert sorted(kept + away) == list(range(200))
    again = {([*names, "new.png"])[index] for index in cut([*names, "new.png"], [*labels, 0], 0.1)[1]}
    assert len(again ^ {names[index] for index in away}) <= 2


def test_a_folder_with_all_splits_keeps_them_and_the_images_own_size(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"train": ["cat", "dog"], "validation": ["cat", "dog"], "test": ["cat", "dog"]}, side=12)
    found = load(root, tmp_path)
    assert (found.labels, found.image_size, found.channels) == (["cat", "dog"], 12, 3)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [20, 20, 20]
    images, _ = found.train.read(torch.tensor([3]))
    assert images.unique().tolist() == [60]


def test_a_missing_split_is_cut_from_train_by_hash(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"train": ["cat", "dog"], "test": ["cat", "dog"]}, count=20)
    found = load(root, tmp_path)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [36, 4, 40]
    assert torch.bincount(found.validation.labels).tolist() == [2, 2]


def test_own_names_of_splits_and_unlike_sizes(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"training": ["cat", "dog"]})
    (root / "training" / "cat" / "wide.png").write_bytes(png(9, 31))
    found = load(root, tmp_path, splits={"train": "training"})
    assert found.image_size == images.DEFAULT_SIZE
    assert load(root, tmp_path, splits={"train": "training"}, imageSize=16).image_size == 16


@pytest.mark.parametrize(
    ("splits", "spoil", "words"),
    [
        ({"train": ["cat"]}, None, "one class only"),
        ({"train": ["cat", "dog"], "test": ["cat"]}, None, "test/dog is missing"),
        ({"train": ["cat", "dog"], "test": ["cat", "dog", "eel"]}, None, "test/eel is a label that train does not have"),
        ({"other": ["cat", "dog"]}, None, "train holds no label folder"),
        ({"train": ["cat", "dog"]}, "dog", "train/dog holds no image"),
    ],
)
def test_bad_folders_are_refused_with_the_path(
    splits: dict[str, list[str]], spoil: str | None, words: str, make_folder: MakeFolder, tmp_path: Path
) -> None:
    root = make_folder(splits)
    if spoil:
        for path in (root / "train" / spoil).iterdir():
            path.rename(path.with_suffix(".txt"))
    with pytest.raises(DataUnreadable, match=words) as caught:
        load(root, tmp_path)
    assert caught.value.exit_code == 65
    assert caught.value.field == "spec.dataset.source"


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(DataUnreadable, match="nowhere"):
        load(tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataUnreadable, match="empty holds no file"):
        load(tmp_path / "empty", tmp_path)


@pytest.mark.parametrize("in_memory", [True, False])
def test_unreadable_images_are_skipped_and_named_up_to_the_stated_share(
    in_memory: bool, make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setattr(images, "IN_MEMORY_BYTES", 0)
    splits = ["cat", "dog"]
    root = make_folder({"train": splits, "validation": splits, "test": splits})
    bad = root / "train" / "dog" / "4.png"
    bad.write_bytes(png(80)[:40])
    found = load(root, tmp_path, maxUnreadableFraction=0.05)
    read, positions = found.train.read(torch.arange(len(found.train)))
    assert len(read) == len(positions) == 19
    assert found.unreadable["train"] == [str(bad)]
    (root / "train" / "cat" / "7.png").write_bytes(b"no image")
    with pytest.raises(DataUnreadable, match=r"2 of 20 images of split train.*7\.png"):
        load(root, tmp_path, maxUnreadableFraction=0.05).train.read(torch.arange(20))


def test_an_image_that_promises_too_many_pixels_is_one_that_can_not_be_read(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Pillow calls it a decompression bomb."""
    root = make_folder({"train": ["cat", "dog"]})
    bomb = bytearray(png(80))
    bomb[16:24] = (20_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (root / "train/dog/4.png").write_bytes(bomb)
    found = load(root, tmp_path, maxUnreadableFraction=0.1)
    assert [name for names in found.unreadable.values() for name in names] == [str(root / "train/dog/4.png")]


def test_a_large_set_is_decoded_batch_by_batch_to_the_same_images(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder({"train": ["cat", "dog"]}, side=13)
    small = load(root, tmp_path, imageSize=8).train
    monkeypatch.setattr(images, "IN_MEMORY_BYTES", 0)
    large = load(root, tmp_path, imageSize=8).train
    assert not isinstance(large, MemorySplit)
    chosen = torch.tensor([5, 0, 11])
    assert torch.equal(small.read(chosen)[0], large.read(chosen)[0])
    assert torch.equal(small.labels, large.labels)


def test_the_preflight_reads_a_few_samples_of_each_class(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"train": ["cat", "dog"]}, count=50)
    found = data.load(Dataset.model_validate({"source": f"file://{root}", "format": "imagefolder"}), tmp_path, first=6)
    assert torch.bincount(found.train.labels).tolist() == [3, 3]


def test_resizing_keeps_a_plain_image_plain() -> None:
    plain = torch.full((1, 1, 8, 8), 77, dtype=torch.uint8)
    assert builtin_digits.resize(plain, 32).unique().tolist() == [77]
