"""A folder of sound in a bucket (versitygw): the same clips as on the disk."""

from pathlib import Path

import numpy
import pytest
import soundfile
import torch

from kompress_api.places import Dataset
from kompress_jobs import data
from testcluster.servers import S3


@pytest.fixture
def sound(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Two labels of 20 clips each, at <bucket>/sound/train and below `tmp_path`/sound; the longest takes 0.7 s."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket = s3.new_bucket()
    for label in ("high", "low"):
        for index in range(20):
            path = tmp_path / "sound" / "train" / label / f"{index}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, numpy.full(8000 + 160 * index, (index + 1) / 32), 16_000)
            s3.client().put_object(Bucket=bucket, Key=f"sound/train/{label}/{index}.flac", Body=path.read_bytes())
    return Dataset.model_validate({"source": f"s3://{bucket}/sound", "endpoint": s3.endpoint, "format": "audiofolder"})


def test_a_bucket_gives_the_same_clips_and_splits_as_the_disk(sound: Dataset, tmp_path: Path) -> None:
    remote = data.load(sound, tmp_path / "scratch")
    local = data.load(Dataset.model_validate({"source": f"file://{tmp_path}/sound", "format": "audiofolder"}), tmp_path / "scratch")
    assert remote.clip_samples == local.clip_samples == 16_000
    for split in ("train", "validation", "test"):
        ours, theirs = getattr(remote, split), getattr(local, split)
        assert torch.equal(ours.labels, theirs.labels)
        everything = torch.arange(len(ours))
        assert all(torch.equal(*pair) for pair in zip(ours.read(everything)[0], theirs.read(everything)[0], strict=True))


def test_the_preflight_copies_a_few_files(sound: Dataset, tmp_path: Path) -> None:
    found = data.load(sound, tmp_path / "scratch", first=4)
    assert torch.bincount(found.train.labels).tolist() == [2, 2]
    assert found.clip_samples == 16_000
    assert len(list((tmp_path / "scratch").rglob("*.flac"))) <= 12
