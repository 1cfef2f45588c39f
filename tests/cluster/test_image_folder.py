"""An image folder in a bucket (versitygw): the same samples as on the disk, copied only as far as they are asked for."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from kompress_api.errors import BucketMissing, DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs import data
from testcluster.servers import S3


@pytest.fixture
def images(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Two labels of 20 images each, at <bucket>/flowers/train and below `tmp_path`/flowers."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket, client = s3.new_bucket(), s3.client()
    for label in ("daisy", "rose"):
        for index in range(20):
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (index, 0, 0 if label == "daisy" else 200)).save(file, "PNG")
            path = tmp_path / "flowers" / "train" / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.getvalue())
            client.put_object(Bucket=bucket, Key=f"flowers/train/{label}/{index}.png", Body=file.getvalue())
    return Dataset.model_validate({"source": f"s3://{bucket}/flowers", "endpoint": s3.endpoint, "format": "imagefolder"})


def test_a_bucket_gives_the_same_samples_and_splits_as_the_disk(images: Dataset, tmp_path: Path) -> None:
    remote = data.load(images, tmp_path / "scratch")
    local = data.load(Dataset.model_validate({"source": f"file://{tmp_path}/flowers", "format": "imagefolder"}), tmp_path / "scratch")
    for split in ("train", "validation", "test"):
        ours, theirs = getattr(remote, split), getattr(local, split)
        assert torch.equal(ours.labels, theirs.labels)
        everything = torch.arange(len(ours))
        assert torch.equal(ours.read(everything)[0], theirs.read(everything)[0])


def test_the_preflight_copies_a_few_files(images: Dataset, tmp_path: Path) -> None:
    found = data.load(images, tmp_path / "scratch", first=4)
    assert torch.bincount(found.train.labels).tolist() == [2, 2]
    assert len(list((tmp_path / "scratch").rglob("*.png"))) <= 12


def test_an_empty_prefix_is_65_and_a_missing_bucket_78(images: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataUnreadable, match="trees holds no file"):
        data.load(images.model_copy(update={"source": images.source.replace("flowers", "trees")}), tmp_path / "scratch")
    with pytest.raises(BucketMissing):
        data.load(images.model_copy(update={"source": "s3://there-is-none/flowers"}), tmp_path / "scratch")
