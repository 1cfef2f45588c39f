"""An image folder in a bucket (versitygw): the same samples as on the disk, copied to the node once, as they are asked for."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from cluster.stepping import steps
from kompress_api.contract import ENV_CACHE
from kompress_api.errors import BucketMissing, DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.training import batches
from kompress_jobs.training.order import Order
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
    assert len(copies(tmp_path / "scratch")) <= 12


def test_a_set_that_is_large_is_streamed_and_resumed_in_the_middle_of_an_epoch(
    images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training begins with its first files, not with the last; what is resumed sees the same samples, and brings no others."""
    monkeypatch.setattr("kompress_jobs.samples.images.IN_MEMORY_BYTES", 0)
    whole = data.load(images, tmp_path / "whole").train
    order = Order(len(whole), batch_size=4, epochs=2, seed=1)
    seen = {step: batch for step, (batch,) in enumerate(steps(whole, order, 0))}
    asked = images.model_copy(update={"image_size": 8})
    resumed = data.load(asked, tmp_path / "resumed").train
    assert copies(tmp_path / "resumed") == []
    start = order.steps_per_epoch - 2
    coming = steps(resumed, order, start)
    (first,) = next(coming)
    assert len(copies(tmp_path / "resumed")) <= 4 * (2 + batches.AHEAD)
    for step, batch in enumerate([first, *(batch for (batch,) in coming)], start):
        assert torch.equal(batch.indices, seen[step].indices)
        assert torch.equal(batch.samples, seen[step].samples)


def test_pods_of_a_node_share_their_copies(images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_CACHE, str(tmp_path / "node"))
    data.load(images, tmp_path / "one")
    first = {path: path.stat().st_ino for path in copies(tmp_path / "node")}
    data.load(images, tmp_path / "other")
    assert len(first) == 40
    assert {path: path.stat().st_ino for path in copies(tmp_path / "node")} == first
    assert copies(tmp_path / "one") == copies(tmp_path / "other") == []


def test_an_image_that_is_overwritten_while_the_job_runs_is_told(
    images: Dataset, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of an epoch would be of one data set, half of another."""
    monkeypatch.setattr("kompress_jobs.samples.images.IN_MEMORY_BYTES", 0)
    train = data.load(images.model_copy(update={"image_size": 8}), tmp_path / "scratch").train
    name = train.names[0]
    bucket = images.source.split("/")[2]
    s3.client().put_object(Bucket=bucket, Key=f"flowers/{name}", Body=b"another")
    with pytest.raises(DataUnreadable, match=f"flowers/{name}.* was overwritten while it was in use"):
        train.read(torch.arange(1))


def copies(folder: Path) -> list[Path]:
    """What was copied there."""
    return sorted(folder.rglob("*.png"))


def test_an_empty_prefix_is_65_and_a_missing_bucket_78(images: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataUnreadable, match="trees holds no file"):
        data.load(images.model_copy(update={"source": images.source.replace("flowers", "trees")}), tmp_path / "scratch")
    with pytest.raises(BucketMissing):
        data.load(images.model_copy(update={"source": "s3://there-is-none/flowers"}), tmp_path / "scratch")
