"""A teacher's answers in a bucket (versitygw): what one pod asked for another finds, bit for bit, and nothing else."""

import sys
from pathlib import Path

import pytest
import torch

from kompress_api.places import Output
from kompress_jobs.bench import Bench
from kompress_jobs.distillation import teacher_cache
from kompress_jobs.distillation.teacher_cache import Answers
from kompress_jobs.storage.store import open_store
from testcluster.servers import S3

PACKAGES = str(Path(__file__).parents[1] / "unit" / "jobs" / "engine" / "packages")
if PACKAGES not in sys.path:
    sys.path.append(PACKAGES)

from stage_contexts import build_context  # noqa: E402

SPEC = {"teachers": [{"from": "source"}], "student": {"source": "timm://resnet10t"}, "epochs": 1, "augmentation": "None"}


@pytest.fixture
def output(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Output:
    monkeypatch.setenv("KOMPRESS_FACTORIES", "tiny_models")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return Output(uri=f"s3://{s3.new_bucket()}/models", endpoint=s3.endpoint)


def answers(folder: Path, output: Output, attempt: int) -> Answers:
    """Of a pod with a disk of its own."""
    context = build_context(
        folder, {"distill": SPEC}, inputs={"teacher0": None}, output=output, attempt=attempt, scratch=f"scratch{attempt}"
    )
    bench = Bench(context)
    return teacher_cache.answers(bench, bench.take("teacher0"), "teacher0")


def test_another_pod_finds_the_answers_and_what_was_half_written_is_not_taken(output: Output, tmp_path: Path) -> None:
    everything = torch.arange(1000)
    asked = answers(tmp_path, output, 1)
    found = answers(tmp_path, output, 2)
    assert (asked.asked, found.asked) == (1, 0)
    assert torch.equal(asked.of(everything), found.of(everything))
    store = open_store(output, "output")
    commit = next(entry.key for entry in store.list("artifacts/") if entry.key.endswith("manifest.json"))
    store.delete([commit])
    again = answers(tmp_path, output, 3)
    assert again.asked == 1, "files without a commit are no answers"
    assert torch.equal(asked.of(everything), again.of(everything))
