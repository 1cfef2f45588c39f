"""Tables in a bucket (versitygw): the same rows as on the disk, whether a prefix or one object is named; of parquet no more is brought than
is looked at."""

import io
import json
from pathlib import Path

import numpy
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from kompress_api.errors import DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.data import image_folder
from kompress_jobs.planning import fingerprint
from kompress_jobs.storage.s3 import S3Store
from testcluster.servers import S3

ROWS = [{"text": f"{word} number {number}", "label": word} for number in range(20) for word in ("tea", "sea")]


@pytest.mark.parametrize("named", ["reviews", "reviews/train.jsonl"])
def test_a_bucket_gives_the_same_rows_and_splits_as_the_disk(named: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket = s3.new_bucket()
    content = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews/train.jsonl").write_text(content)
    s3.client().put_object(Bucket=bucket, Key="reviews/train.jsonl", Body=content.encode())
    columns = {"format": "json", "inputColumn": "text", "labelColumn": "label"}
    far = Dataset.model_validate({"source": f"s3://{bucket}/{named}", "endpoint": s3.endpoint, **columns})
    remote = data.load(far, tmp_path / "scratch")
    local = data.load(Dataset.model_validate({"source": f"file://{tmp_path}/{named}", **columns}), tmp_path / "scratch")
    for split in ("train", "validation", "test"):
        ours, theirs = getattr(remote, split), getattr(local, split)
        assert torch.equal(ours.labels, theirs.labels)
        everything = torch.arange(len(ours))
        assert ours.read(everything)[0] == theirs.read(everything)[0]
    before = fingerprint.fingerprint(far)
    assert (before.means, before.files) == ("listing", 1)
    s3.client().put_object(Bucket=bucket, Key="reviews/train.jsonl", Body=content.replace("tea", "pea").encode())
    assert fingerprint.fingerprint(far).digest != before.digest
    assert "pea" in data.load(far, tmp_path / "scratch").labels, "a listing that has changed is copied anew"


GROUPS, ROWS_EACH, SIDE = 12, 8, 64
SPLITS = ("train-0", "train-1", "validation", "test")


@pytest.fixture
def photos(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Noise, which no codec makes smaller, as `datasets` keeps images in parquet: below `tmp_path`/photos and at <bucket>/photos."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(image_folder, "IN_MEMORY_BYTES", 0)
    bucket = s3.new_bucket()
    (tmp_path / "photos").mkdir()
    generator = numpy.random.default_rng(0)
    for split in SPLITS:
        rows = []
        for index in range(GROUPS * ROWS_EACH):
            content = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=numpy.uint8)).save(content, "PNG")
            rows.append({"image": {"bytes": content.getvalue(), "path": None}, "label": index % 2})
        file = tmp_path / f"photos/{split}.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=ROWS_EACH)
        s3.client().upload_file(str(file), bucket, f"photos/{split}.parquet")
    columns = {"format": "parquet", "inputColumn": "image", "labelColumn": "label", "imageSize": SIDE}
    return Dataset.model_validate({"source": f"s3://{bucket}/photos", "endpoint": s3.endpoint, **columns})


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every part that was asked for."""
    sizes: list[int] = []
    read_part = S3Store.read_part

    def counted(self, entry, start, stop):  # type: ignore[no-untyped-def]
        sizes.append(stop - start)
        return read_part(self, entry, start, stop)

    monkeypatch.setattr(S3Store, "read_part", counted)
    return sizes


def test_images_in_parquet_come_a_row_group_at_a_time(photos: Dataset, brought: list[int], tmp_path: Path) -> None:
    """Training begins with the first row groups, not with the last."""
    whole = sum(file.stat().st_size for file in (tmp_path / "photos").iterdir())
    group = whole / len(SPLITS) / GROUPS
    remote = data.load(photos, tmp_path / "scratch").train
    assert sum(brought) < 4 * group + len(SPLITS) * 80_000, "footers, labels, and one row group a split that tells images from sound"
    here = {"source": f"file://{tmp_path}/photos", "endpoint": None}
    local = data.load(photos.model_copy(update=here), tmp_path / "scratch").train
    before = sum(brought)
    for chosen in (torch.arange(ROWS_EACH), torch.arange(3, len(remote), 3 * ROWS_EACH)):
        (ours, found), (theirs, _) = remote.read(chosen), local.read(chosen)
        assert torch.equal(ours, theirs)  # type: ignore[arg-type]
        assert len(found) == len(chosen)
    assert sum(brought) - before < (1 + len(chosen)) * 1.1 * group
    remote.read(torch.arange(len(remote)))
    before = sum(brought)
    remote.read(torch.arange(len(remote)))
    data.load(photos, tmp_path / "scratch").train.read(torch.arange(len(remote)))
    assert sum(brought) - before < len(SPLITS) * 80_000, "nothing is brought twice to a node"


def test_the_preflight_brings_a_few_row_groups(photos: Dataset, brought: list[int], tmp_path: Path) -> None:
    found = data.load(photos, tmp_path / "scratch", first=4)
    assert torch.bincount(found.train.labels).tolist() == [2, 2]
    found.train.read(torch.arange(4))
    assert sum(brought) < sum(file.stat().st_size for file in (tmp_path / "photos").iterdir()) / 3


def test_a_table_that_is_overwritten_while_the_job_runs_is_told(photos: Dataset, s3: S3, tmp_path: Path) -> None:
    train = data.load(photos, tmp_path / "scratch").train
    s3.client().put_object(Bucket=photos.source.split("/")[2], Key="photos/train-1.parquet", Body=b"another")
    with pytest.raises(DataUnreadable, match=r"photos/train-1\.parquet.* was overwritten while it was in use"):
        train.read(torch.arange(len(train)))


def test_texts_in_parquet_come_without_the_other_columns(
    s3: S3, brought: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket, content = s3.new_bucket(), io.BytesIO()
    table = pyarrow.Table.from_pylist([row | {"scan": numpy.random.default_rng(index).bytes(50_000)} for index, row in enumerate(ROWS)])
    parquet.write_table(table, content, row_group_size=2)
    s3.client().put_object(Bucket=bucket, Key="reviews.parquet", Body=content.getvalue())
    columns = {"format": "parquet", "inputColumn": "text", "labelColumn": "label"}
    reviews = Dataset.model_validate({"source": f"s3://{bucket}/reviews.parquet", "endpoint": s3.endpoint, **columns})
    found = data.load(reviews, tmp_path / "scratch")
    assert found.labels == ["sea", "tea"]
    assert sum(brought) < len(content.getvalue()) / 10
    first = len(brought)
    again = data.load(reviews, tmp_path / "scratch").train
    assert again.read(torch.arange(len(again)))[0] == found.train.read(torch.arange(len(found.train)))[0]
    assert len(brought) - first <= 2, "its footer: the columns lie on this node"


def test_a_damaged_row_group_of_texts_costs_its_own_rows(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    file, bucket = tmp_path / "reviews.parquet", s3.new_bucket()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), file, row_group_size=10)
    content = bytearray(file.read_bytes())
    start = parquet.ParquetFile(file).metadata.row_group(3).column(0).dictionary_page_offset
    content[start : start + 40] = b"\xff" * 40
    s3.client().put_object(Bucket=bucket, Key="reviews.parquet", Body=bytes(content))
    columns = {"format": "parquet", "inputColumn": "text", "labelColumn": "label", "maxUnreadableFraction": 0.5}
    reviews = Dataset.model_validate({"source": f"s3://{bucket}/reviews.parquet", "endpoint": s3.endpoint, **columns})
    assert data.load(reviews, tmp_path / "scratch").unreadable["train"] == [f"reviews.parquet:{row} (damaged)" for row in range(31, 41)]
