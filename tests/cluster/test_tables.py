"""Tables in a bucket (versitygw): the same rows as on the disk, whether a prefix or one object is named; of parquet and arrow no more is
brought than is looked at."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import ipc, parquet

from cluster.stepping import steps
from kompress_api.errors import DataUnreadable
from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.planning import fingerprint
from kompress_jobs.samples import images, record_batches
from kompress_jobs.storage.s3 import S3Store
from kompress_jobs.training.order import Order
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


GROUPS, ROWS_EACH, SIDE = 12, 8, 128
SPLITS = ("train-0", "train-1", "validation", "test")
FOOTER = 80_000
"""Bytes of parquet that are brought to see its footer; of a stream of arrow 16 KiB a record batch, and 64 KiB of pyarrow's."""


def as_parquet(table: pyarrow.Table, file: Path) -> None:
    parquet.write_table(table, file, row_group_size=ROWS_EACH)


def as_stream(table: pyarrow.Table, file: Path) -> None:
    """As `datasets` does it."""
    with ipc.new_stream(str(file), table.schema) as stream:
        stream.write_table(table, max_chunksize=ROWS_EACH)


def as_file(table: pyarrow.Table, file: Path) -> None:
    with ipc.new_file(str(file), table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(table, max_chunksize=ROWS_EACH)


WRITERS: dict[str, Callable[[pyarrow.Table, Path], None]] = {"parquet": as_parquet, "stream": as_stream, "file": as_file}


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.new_bucket()


@pytest.fixture(params=WRITERS)
def photos(request: pytest.FixtureRequest, bucket: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Noise, which no codec makes smaller, as `datasets` keeps images: below `tmp_path`/photos and at <bucket>/photos."""
    monkeypatch.setattr(images, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(record_batches, "LEAST", 0)
    form = "parquet" if request.param == "parquet" else "arrow"
    (tmp_path / "photos").mkdir()
    generator = numpy.random.default_rng(0)
    for split in SPLITS:
        rows = []
        for index in range(GROUPS * ROWS_EACH):
            content = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=numpy.uint8)).save(content, "PNG")
            rows.append({"image": {"bytes": content.getvalue(), "path": None}, "label": index % 2})
        file = tmp_path / f"photos/{split}.{form}"
        WRITERS[request.param](pyarrow.Table.from_pylist(rows), file)
        s3.client().upload_file(str(file), bucket, f"photos/{split}.{form}")
    columns = {"format": form, "inputColumn": "image", "labelColumn": "label", "imageSize": SIDE}
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


def test_images_in_cells_come_a_row_group_at_a_time(photos: Dataset, brought: list[int], tmp_path: Path) -> None:
    """Training begins with the first row groups, not with the last."""
    whole = sum(file.stat().st_size for file in (tmp_path / "photos").iterdir())
    group = whole / len(SPLITS) / GROUPS
    remote = data.load(photos, tmp_path / "scratch").train
    assert sum(brought) < len(SPLITS) * (group + GROUPS * FOOTER // 4), (
        "footers, labels, and one row group a split that tells images from sound"
    )
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
    assert sum(brought) - before < len(SPLITS) * FOOTER, "nothing is brought twice to a node"


def test_the_preflight_brings_a_few_row_groups(photos: Dataset, brought: list[int], tmp_path: Path) -> None:
    found = data.load(photos, tmp_path / "scratch", first=4)
    assert torch.bincount(found.train.labels).tolist() == [2, 2]
    found.train.read(torch.arange(4))
    assert sum(brought) < sum(file.stat().st_size for file in (tmp_path / "photos").iterdir()) / 3


def test_what_is_resumed_in_the_middle_of_an_epoch_sees_the_same_and_brings_no_more(
    photos: Dataset, brought: list[int], tmp_path: Path
) -> None:
    whole = data.load(photos, tmp_path / "whole").train
    order = Order(len(whole), batch_size=4, epochs=1, seed=1)
    seen = {step: batch for step, (batch,) in enumerate(steps(whole, order, 0))}
    resumed = data.load(photos, tmp_path / "resumed").train
    before, start = sum(brought), order.steps_per_epoch - 2
    found = [batch for (batch,) in steps(resumed, order, start)]
    assert [batch.indices.tolist() for batch in found] == [seen[step].indices.tolist() for step in (start, start + 1)]
    assert all(torch.equal(batch.samples, seen[step].samples) for step, batch in enumerate(found, start))
    group = sum(file.stat().st_size for file in (tmp_path / "photos").iterdir()) / len(SPLITS) / GROUPS
    assert sum(brought) - before < (2 * 4) * 1.1 * group, "no more than a row group a sample"


def test_a_table_that_is_overwritten_while_the_job_runs_is_told(photos: Dataset, s3: S3, tmp_path: Path) -> None:
    train = data.load(photos, tmp_path / "scratch").train
    s3.client().put_object(Bucket=photos.source.split("/")[2], Key=f"photos/train-1.{photos.format}", Body=b"another")
    with pytest.raises(DataUnreadable, match=r"photos/train-1\.(parquet|arrow).* was overwritten while it was in use"):
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


def asked(bucket: str, s3: S3, **settings: object) -> Dataset:
    columns = {"format": "arrow", "inputColumn": "image", "labelColumn": "label", "maxUnreadableFraction": 0.5}
    return Dataset.model_validate({"source": f"s3://{bucket}/set", "endpoint": s3.endpoint, **columns, **settings})


def pictures(count: int) -> pyarrow.Table:
    """Small ones, with labels that are kept once."""
    rows = []
    for index in range(count):
        content = io.BytesIO()
        Image.new("RGB", (8, 8), (index, index, index)).save(content, "PNG")
        rows.append({"image": content.getvalue(), "label": ("dark", "light")[index % 2]})
    table = pyarrow.Table.from_pylist(rows)
    return table.set_column(1, "label", table["label"].dictionary_encode())


def test_small_batches_of_arrow_come_whole(bucket: str, s3: S3, brought: list[int], tmp_path: Path) -> None:
    """A request for each would take longer than the file."""
    as_stream(pictures(200), tmp_path / "train.arrow")
    s3.client().upload_file(str(tmp_path / "train.arrow"), bucket, "set/train.arrow")
    found = data.load(asked(bucket, s3), tmp_path / "scratch")
    assert found.labels == ["dark", "light"]
    assert len(found.train) + len(found.validation) + len(found.test) == 200
    assert len(brought) <= 4, "its first headers"


def large(rows: int) -> pyarrow.Table:
    """Pictures of which a hundred have more than 4 MiB; ten have less."""
    found = pictures(rows)
    column = [cell.as_py() + bytes(50_000) for cell in found["image"]]  # decoders do not look behind the picture
    return found.set_column(0, "image", pyarrow.array(column, pyarrow.binary()))


def in_batches(table: pyarrow.Table, file: Path) -> None:
    with ipc.new_stream(str(file), table.schema) as stream:
        stream.write_table(table, max_chunksize=100)


def test_parts_of_a_split_may_be_brought_in_different_ways(
    bucket: str, s3: S3, brought: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two files one has large batches, the other is a short rest."""
    monkeypatch.setattr(images, "IN_MEMORY_BYTES", 0)
    for name, rows in (("train-0", 200), ("train-1", 10), ("validation", 10), ("test", 10)):
        in_batches(large(rows), tmp_path / f"{name}.arrow")
        s3.client().upload_file(str(tmp_path / f"{name}.arrow"), bucket, f"set/{name}.arrow")
    found = data.load(asked(bucket, s3, imageSize=8), tmp_path / "scratch").train
    assert sum(brought) < 1.5 * 5_000_000 + 10 * FOOTER, "one batch of the first"
    pixels = found.read(torch.arange(210))[0]
    assert pixels[:, 0, 0, 0].tolist() == [*range(200), *range(10)]  # type: ignore[index]


@pytest.mark.parametrize("limit", ["HELD", "BATCHES"])
def test_what_memory_should_not_hold_and_what_is_asked_for_too_often_is_mapped(
    limit: str, bucket: str, s3: S3, brought: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that was written at once is one batch; one whose first batch alone is large would cost three requests a row."""
    table = large(200)
    if limit == "HELD":
        monkeypatch.setattr(record_batches, "HELD", 5_000_000)
    with ipc.new_stream(str(tmp_path / "train.arrow"), table.schema) as stream:
        stream.write_table(table[:100])
        stream.write_table(table[100:], max_chunksize=1)
    s3.client().upload_file(str(tmp_path / "train.arrow"), bucket, "set/train.arrow")
    found = data.load(asked(bucket, s3), tmp_path / "scratch")
    assert len(found.train) + len(found.validation) + len(found.test) == 200
    assert len(brought) < 10
    (copy,) = (tmp_path / "scratch").rglob("*.arrow")
    assert copy.stat().st_size == (tmp_path / "train.arrow").stat().st_size


def test_columns_that_nobody_asked_for_do_not_matter(
    bucket: str, s3: S3, brought: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one whose type has no empty form, nor a dictionary, which would come with every batch."""
    monkeypatch.setattr(record_batches, "LEAST", 0)
    table = pictures(40)
    union = pyarrow.UnionArray.from_dense(
        pyarrow.array([0] * 40, pyarrow.int8()), pyarrow.array(range(40), pyarrow.int32()), [pyarrow.array(range(40))]
    )
    wide = pyarrow.array([bytes([number]) * 10_000 for number in range(40)]).dictionary_encode()
    for number, column in enumerate((union, wide)):
        as_stream(table.append_column("other", [column]), tmp_path / "train.arrow")
        s3.client().upload_file(str(tmp_path / "train.arrow"), bucket, f"{number}/train.arrow")
        found = data.load(asked(bucket, s3, source=f"s3://{bucket}/{number}"), tmp_path / "scratch")
        assert len(found.train) + len(found.validation) + len(found.test) == 40
    assert sum(brought) < 4 * FOOTER


def test_cells_that_can_not_be_decompressed_cost_their_own_rows(
    bucket: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a length of petabytes, which stands in front of what is compressed."""
    monkeypatch.setattr(record_batches, "LEAST", 0)
    table = large(40).set_column(1, "label", pyarrow.array(["dark", "light"] * 20))
    as_file(table, tmp_path / "train.arrow")
    content = bytearray((tmp_path / "train.arrow").read_bytes())
    frames = [at for at in range(len(content)) if content.startswith(b"\x28\xb5\x2f\xfd", at)]
    content[frames[1] - 2] = 1  # of the first batch's cells: their offsets are the first frame
    for split, body in (("train", content), ("validation", pictures_as_stream(tmp_path)), ("test", pictures_as_stream(tmp_path))):
        s3.client().put_object(Bucket=bucket, Key=f"set/{split}.arrow", Body=bytes(body))
    found = data.load(asked(bucket, s3, imageSize=8), tmp_path / "scratch")
    assert len(found.train) == 40 - ROWS_EACH
    assert found.unreadable["train"] == [f"train.arrow:{row} (empty or damaged)" for row in range(1, ROWS_EACH + 1)]


def test_labels_that_can_not_be_decompressed_are_the_datas_fault(
    bucket: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not this node's, where the stage would be tried again."""
    monkeypatch.setattr(record_batches, "LEAST", 0)
    labels = pyarrow.array([f"label {number % 2}" for number in range(40)])
    table = pictures(40).set_column(1, "label", labels)
    with ipc.new_file(str(tmp_path / "train.arrow"), table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as file:
        file.write_table(table)
    content = bytearray((tmp_path / "train.arrow").read_bytes())
    at = content.rindex(b"\x28\xb5\x2f\xfd")  # zstd's magic number
    content[at : at + 4] = bytes(4)
    s3.client().put_object(Bucket=bucket, Key="set/train.arrow", Body=bytes(content))
    with pytest.raises(DataUnreadable, match=r"train\.arrow can't be read"):
        data.load(asked(bucket, s3), tmp_path / "scratch")


@pytest.mark.parametrize("write", [as_stream, as_file])
def test_a_dictionary_of_labels_is_read_by_parts(
    write: Callable[[pyarrow.Table, Path], None], bucket: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_batches, "LEAST", 0)
    write(pictures(40), tmp_path / "train.arrow")
    s3.client().upload_file(str(tmp_path / "train.arrow"), bucket, "set/train.arrow")
    far = data.load(asked(bucket, s3), tmp_path / "scratch")
    near = data.load(asked(bucket, s3, source=(tmp_path / "train.arrow").as_uri(), endpoint=None), tmp_path / "scratch")
    for ours, theirs in ((far.train, near.train), (far.validation, near.validation), (far.test, near.test)):
        chosen = torch.arange(len(theirs))
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.read(chosen)[0], theirs.read(chosen)[0])  # type: ignore[arg-type]


def test_a_damaged_record_batch_costs_its_own_rows(bucket: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_batches, "LEAST", 0)
    monkeypatch.setattr(images, "IN_MEMORY_BYTES", 0)
    as_stream(pictures(40), tmp_path / "train.arrow")
    content = bytearray((tmp_path / "train.arrow").read_bytes())
    at = content.index(b"\x89PNG", len(content) // 2)  # behind the offsets of its batch
    start = content.rindex(numpy.array([0], "<i4").tobytes() + numpy.array([content.index(b"IEND", at) + 8 - at], "<i4").tobytes(), 0, at)
    content[start + 4 : start + 8] = numpy.array([1 << 30], "<i4").tobytes()
    for split, body in (("train", content), ("validation", pictures_as_stream(tmp_path)), ("test", pictures_as_stream(tmp_path))):
        s3.client().put_object(Bucket=bucket, Key=f"set/{split}.arrow", Body=bytes(body))
    found = data.load(asked(bucket, s3, imageSize=8), tmp_path / "scratch")
    read = found.train.read(torch.arange(40))[1]
    assert len(read) == 40 - ROWS_EACH
    assert len(found.unreadable["train"]) == ROWS_EACH


def pictures_as_stream(folder: Path) -> bytes:
    as_stream(pictures(8), folder / "other.arrow")
    return (folder / "other.arrow").read_bytes()


@pytest.mark.parametrize("write", [as_stream, as_file])
@pytest.mark.parametrize("left", [0.4, 0.9])
def test_an_arrow_file_that_is_cut_off_is_told(
    write: Callable[[pyarrow.Table, Path], None], left: float, bucket: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_batches, "LEAST", 0)
    write(pictures(40), tmp_path / "train.arrow")
    content = (tmp_path / "train.arrow").read_bytes()
    s3.client().put_object(Bucket=bucket, Key="set/train.arrow", Body=content[: int(len(content) * left)])
    with pytest.raises(DataUnreadable, match=r"train\.arrow can't be read"):
        data.load(asked(bucket, s3), tmp_path / "scratch")
