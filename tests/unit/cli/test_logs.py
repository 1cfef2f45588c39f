"""`kompress logs` must open the log of the pod that was asked for: newest attempt, and the pod that holds the rank."""

from typing import Any

import pytest
import typer

from kompress_operator.cli.logs import newest_attempt, pod_of_rank, processes


def pod(stage: str, attempt: int, index: int, *, created: str, processes: str = "2", gpus: int = 0) -> dict[str, Any]:
    worker = {"name": "worker", "env": [{"name": "KOMPRESS_PROCESSES", "value": processes}]}
    if gpus:
        worker["resources"] = {"limits": {"nvidia.com/gpu": str(gpus), "cpu": "4"}}
    return {
        "metadata": {
            "name": f"job-{stage}-{attempt}-{index}",
            "creationTimestamp": created,
            "labels": {"kompress.io/stage": stage, "kompress.io/attempt": str(attempt)},
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "spec": {"containers": [{"name": "sidecar"}, worker]},
    }


PODS = [
    pod("slim", 9, 0, created="2026-01-01T00:00:02Z"),
    pod("slim", 10, 1, created="2026-01-01T00:00:02Z"),
    pod("slim", 10, 0, created="2026-01-01T00:00:02Z"),
    pod("adapt", 11, 0, created="2026-01-01T00:00:01Z"),
]


def test_the_attempt_that_was_started_last() -> None:
    assert [entry["metadata"]["name"] for entry in newest_attempt(PODS, "job", "")] == ["job-slim-10-0", "job-slim-10-1"]


@pytest.mark.parametrize(("rank", "name"), [(0, "job-slim-10-0"), (1, "job-slim-10-0"), (2, "job-slim-10-1"), (3, "job-slim-10-1")])
def test_ranks_follow_the_pods_indexes(rank: int, name: str) -> None:
    assert pod_of_rank(newest_attempt(PODS, "job", ""), rank)["metadata"]["name"] == name


def test_a_rank_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        pod_of_rank(newest_attempt(PODS, "job", ""), 4)
    assert capsys.readouterr().err == "error: stage slim has no rank 4: it has 2 pods of 2 processes\n"


@pytest.mark.parametrize(("gpus", "count"), [(0, 1), (8, 8)])
def test_auto_is_one_process_a_gpu(gpus: int, count: int) -> None:
    assert processes(pod("slim", 1, 0, created="", processes="auto", gpus=gpus)) == count
