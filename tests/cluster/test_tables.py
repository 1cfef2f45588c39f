"""Tables in a bucket (versitygw): the same rows as on the disk, whether a prefix or one object is named."""

import json
from pathlib import Path

import pytest
import torch

from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.planning import fingerprint
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
