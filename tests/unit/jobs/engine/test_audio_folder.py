"""Folders of sound: clips of one length, and each bad file counted and named."""

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import soundfile
import torch

from kompress_api.errors import DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.samples import Clips, sound
from kompress_jobs.samples.sound import RATE, Heard
from kompress_jobs.samples.splits import Data, MemorySplit

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """<split>/<label>/<n>.wav; clip n is a constant of its own height and 0.1 s + n/100 s long."""

    def make(splits: list[str], count: int = 10) -> Path:
        for split in splits:
            for label in ("high", "low"):
                folder = tmp_path / "sound" / split / label
                folder.mkdir(parents=True)
                for index in range(count):
                    soundfile.write(folder / f"{index:02}.wav", numpy.full(RATE // 10 + index * RATE // 100, (index + 1) / 32), RATE)
        return tmp_path / "sound"

    return make


def load(root: Path, tmp_path: Path, first: int | None = None, **fields: object) -> Data:
    return data.load(Dataset.model_validate({"source": f"file://{root}", "format": "audiofolder"} | fields), tmp_path, first=first)


def clips(found: Data, split: str = "train") -> Clips:
    samples, _ = getattr(found, split).read(torch.arange(len(getattr(found, split))))
    assert isinstance(samples, Clips)
    return samples


def test_clips_are_filled_up_to_the_longest_and_cut_where_the_manifest_says(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(["train", "validation", "test"])
    soundfile.write(root / "train" / "high" / "long.flac", numpy.full(44_100, 0.5), 44_100)
    found = load(root, tmp_path)
    assert (found.labels, found.sample_rate, found.clip_samples) == (["high", "low"], RATE, RATE)
    heard = clips(found)
    assert heard.waves.shape == (21, RATE)
    assert heard.lengths[:2].tolist() == [RATE // 10, RATE // 10 + RATE // 100]
    assert heard.lengths.max() == RATE
    assert heard.waves[1].unique().tolist() == [0, 2 / 32]
    short = clips(load(root, tmp_path, clipSeconds=0.05))
    assert short.waves.shape == (21, RATE // 20)
    assert short.lengths.unique().tolist() == [RATE // 20]


def test_the_preflight_finds_the_length_of_all_from_a_few(make_folder: MakeFolder, tmp_path: Path) -> None:
    """A plan for clips of half a second would promise the costs of another model."""
    root = make_folder(["train"])
    soundfile.write(root / "train" / "low" / "99.wav", numpy.full(3 * RATE, 0.5), RATE)
    found = load(root, tmp_path, first=2)
    assert len(found.train) == 2
    assert found.clip_samples == load(root, tmp_path).clip_samples == 3 * RATE


@pytest.mark.parametrize("in_memory", [True, False])
def test_unreadable_clips_are_skipped_and_named_up_to_the_stated_share(
    in_memory: bool, make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setattr(sound, "IN_MEMORY_BYTES", 0)
    root = make_folder(["train", "validation", "test"])
    bad = root / "train" / "low" / "04.wav"
    bad.write_bytes(b"no sound")
    found = load(root, tmp_path, maxUnreadableFraction=0.05)
    samples, positions = found.train.read(torch.arange(len(found.train)))
    assert len(samples.lengths) == len(positions) == 19  # type: ignore[union-attr]
    assert found.unreadable["train"] == [str(bad)]
    soundfile.write(root / "train" / "high" / "07.wav", numpy.zeros(0), RATE)
    with pytest.raises(DataUnreadable, match=r"2 of 20 clips of split train.*07\.wav") as caught:
        load(root, tmp_path, maxUnreadableFraction=0.05).train.read(torch.arange(20))
    assert caught.value.exit_code == 65


def test_a_large_set_is_decoded_batch_by_batch_to_the_same_clips(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(["train"])
    small = load(root, tmp_path).train
    monkeypatch.setattr(sound, "IN_MEMORY_BYTES", 0)
    large = load(root, tmp_path).train
    assert isinstance(small, Heard)
    assert isinstance(large, Heard)
    assert isinstance(small.stored, MemorySplit)
    assert not isinstance(large.stored, MemorySplit)
    chosen = torch.tensor([5, 0, 11])
    for ours, theirs in zip(small.read(chosen)[0], large.read(chosen)[0], strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(small.labels, large.labels)


def test_a_folder_of_images_is_no_folder_of_sound(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "1.png").touch()
    with pytest.raises(DataUnreadable, match="train/cat holds no clip") as caught:
        load(tmp_path, tmp_path)
    assert ".wav" in caught.value.hint
