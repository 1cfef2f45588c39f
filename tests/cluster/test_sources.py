"""Models and data in a bucket (versitygw): the same as on the disk, and no more of them is brought than is asked for."""

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import ipc
from safetensors.torch import save

from kompress_api.errors import UnsafeFile
from kompress_api.places import Dataset, ModelSource
from kompress_jobs import data
from kompress_jobs.loading import assemble
from kompress_jobs.planning import fingerprint
from testcluster.servers import S3


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.new_bucket()


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (10 * number, 10 * number, 10 * number)).save(file, "PNG")
    return file.getvalue()


def put(s3: S3, bucket: str, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        s3.client().put_object(Bucket=bucket, Key=name, Body=content)


def dataset(s3: S3, place: str, form: str) -> Dataset:
    asked: dict[str, Any] = {"source": place, "format": form, "inputColumn": "image", "labelColumn": "label"}
    return Dataset.model_validate(asked | ({"endpoint": s3.endpoint} if place.startswith("s3") else {}))


def test_a_table_of_paths_in_a_bucket_brings_the_images_that_are_asked_for(s3: S3, bucket: str, tmp_path: Path) -> None:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerows([["image", "label"], *([f"{number:02}.png", "ab"[number % 2]] for number in range(24))])
    files = {"set/train.csv": table.getvalue().encode()} | {f"set/{number:02}.png": png(number) for number in range(24)}
    put(s3, bucket, files)
    far = dataset(s3, f"s3://{bucket}/set", "csv")
    few = data.load(far, tmp_path / "scratch", first=4)
    assert torch.bincount(few.train.labels).tolist() == [2, 2]
    brought = len(list((tmp_path / "scratch").rglob("*.png")))
    assert brought == sum(len(split) for split in (few.train, few.validation, few.test))
    found = data.load(far, tmp_path / "scratch")
    images, _ = found.train.read(torch.arange(len(found.train)))
    assert (images[:, 0, 0, 0] // 10 % 2).tolist() == found.train.labels.tolist()  # type: ignore[call-overload]
    before = fingerprint.fingerprint(far)
    assert (before.means, before.files) == ("listing", 25)
    put(s3, bucket, {"set/03.png": png(4)})
    assert fingerprint.fingerprint(far).digest != before.digest


def test_a_set_that_datasets_saved_is_read_from_a_bucket(s3: S3, bucket: str, tmp_path: Path) -> None:
    table = pyarrow.table({"image": [{"bytes": png(number), "path": None} for number in range(24)], "label": [n % 2 for n in range(24)]})
    file = io.BytesIO()
    with ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    put(s3, bucket, {"set/train/data-00000-of-00001.arrow": file.getvalue(), "set/train/state.json": b"{}", "set/dataset_dict.json": b"{}"})
    found = data.load(dataset(s3, f"s3://{bucket}/set", "arrow"), tmp_path / "scratch")
    images, _ = found.train.read(torch.arange(len(found.train)))
    assert (images[:, 0, 0, 0] // 10 % 2).tolist() == found.train.labels.tolist()  # type: ignore[call-overload]


def test_weights_in_a_bucket_are_taken_over_whole_and_in_part(s3: S3, bucket: str, tmp_path: Path) -> None:
    digits = data.load(Dataset(source="builtin://digits", image_size=32), tmp_path)
    made = assemble.load_source(ModelSource(source="timm://test_resnet"), digits, "image-classification", 1, tmp_path, field="spec.model")
    state = {name: tensor.contiguous() + 1 for name, tensor in made.model.state_dict().items()}
    put(s3, bucket, {"model.safetensors": save(state), "pickled/pytorch_model.bin": b""})
    place = {"source": f"s3://{bucket}/model.safetensors", "endpoint": s3.endpoint}

    def load(**asked: Any) -> dict[str, torch.Tensor]:
        source = ModelSource.model_validate(asked)
        found = assemble.load_source(source, digits, "image-classification", 0, tmp_path / "scratch", field="spec.model")
        return found.model.state_dict()

    whole = load(**place, architecture="timm://test_resnet")
    assert all(torch.equal(whole[name], tensor) for name, tensor in state.items())
    part = load(source="timm://test_resnet", weights=[place | {"include": ["bn1"]}])
    assert torch.equal(part["bn1.weight"], state["bn1.weight"])
    assert not torch.equal(part["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    source = ModelSource.model_validate(place | {"architecture": "timm://test_resnet"})
    before = fingerprint.resolve(source)
    put(s3, bucket, {"model.safetensors": save({name: tensor + 1 for name, tensor in state.items()})})
    assert fingerprint.resolve(source) != before
    with pytest.raises(UnsafeFile, match="pickle"):
        load(source=f"s3://{bucket}/pickled", endpoint=s3.endpoint, architecture="timm://test_resnet")
