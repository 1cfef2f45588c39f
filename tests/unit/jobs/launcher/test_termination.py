"""What the kubelet keeps of a pod: it always fits, and it names the error that came first."""

import errno
import json

import pytest
from pydantic import TypeAdapter

from kompress_api.contract import MAX_TERMINATION_BYTES, StageFailure, StageSuccess, Termination
from kompress_api.errors import DataUnreadable, ExitCode, Interrupted
from kompress_jobs.failures import describe
from kompress_jobs.pod import termination

either = TypeAdapter(Termination)


def failure(rank: int, time_us: int, **fields) -> StageFailure:
    return StageFailure(**{"reason": "ValueError", "message": "x", "rank": rank, "time_us": time_us, "exit_code": 70, **fields})


@pytest.mark.parametrize("text", ["a", "\n", '"', "é", "🙂"])
def test_the_longest_failure_fits_and_keeps_its_reason(text):
    message = failure(7, 1, message=text * 1024, hint=text * 512, trace=text * 1200, field="spec.stages[1].prune")
    raw = termination.encode(message)
    assert len(raw) <= MAX_TERMINATION_BYTES
    read = either.validate_json(raw)
    assert (read.reason, read.rank, read.field, read.exit_code) == ("ValueError", 7, "spec.stages[1].prune", 70)
    assert read.message.startswith(text), "the trace goes before the message does"


def test_of_too_many_figures_those_that_goals_read_stay():
    figures = {f"latencyP50Ms@TorchExport/{'x' * 30}/{n}": float(n) for n in range(60)} | {
        "accuracy": 0.5,
        "latencyP99Ms@ONNX/cpu1/32": 3.5,
    }
    message = StageSuccess(artifact="s3://b/" + "a" * 900, digest="sha256:" + "0" * 64, key="1" * 64, metrics=figures)
    raw = termination.encode(message, keep=("latencyP99Ms@ONNX/cpu1/32",))
    assert len(raw) <= MAX_TERMINATION_BYTES
    read = either.validate_json(raw)
    assert read.metrics["latencyP99Ms@ONNX/cpu1/32"] == 3.5
    assert read.metrics["accuracy"] == 0.5
    assert read.artifact == message.artifact


def test_the_largest_preflight_result_fits():
    names = [f"stage{n:011d}" for n in range(32)]
    message = StageSuccess(
        plan="s3://" + "p" * 1000,
        plan_digest="sha256:" + "0" * 64,
        parent_run_id="r" * 32,
        parent_run_url="http://" + "u" * 200,
        keys=dict.fromkeys(names, "0123456789abcdef"),
        hits=dict.fromkeys(names, True),
        metrics={"parameters": 1.0},
    )
    raw = termination.encode(message)
    assert len(raw) <= MAX_TERMINATION_BYTES
    assert either.validate_json(raw).hits == message.hits


def test_the_earliest_primary_error_is_the_root_cause_to_the_microsecond():
    aborted = failure(0, 100, secondary=True)
    first = failure(3, 1_000_001)
    assert termination.root_cause([aborted, failure(1, 1_000_002), first]) == first


def test_without_a_primary_error_an_interruption_goes_before_an_aborted_collective():
    stopped = failure(1, 200, secondary=True, exit_code=75)
    assert termination.root_cause([failure(0, 100, secondary=True), stopped]) == stopped
    assert termination.root_cause([]) is None


def test_an_error_of_ours_keeps_its_words():
    told = describe(DataUnreadable("train holds one class only", hint="add another", field="spec.dataset"), rank=2)
    assert (told.reason, told.message, told.hint, told.field) == (
        "DataUnreadable",
        "train holds one class only",
        "add another",
        "spec.dataset",
    )
    assert (told.exit_code, told.rank, told.secondary, told.trace) == (65, 2, False, "")


def test_a_strangers_error_is_retryable_and_carries_its_last_frames():
    try:
        json.loads("{")
    except ValueError as error:
        told = describe(error, rank=0)
    assert told.exit_code == ExitCode.SOFTWARE
    assert told.reason == "JSONDecodeError"
    assert "json.loads" in told.trace


def test_a_full_disk_is_an_io_error():
    assert describe(OSError(errno.ENOSPC, "No space left on device")).exit_code == ExitCode.IO_ERROR


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:2842"),
        Interrupted("stopped", hint=""),
    ],
)
def test_what_another_ranks_end_or_a_stop_brings_is_secondary(error):
    assert describe(error).secondary


def test_a_file_that_cannot_be_replaced_is_written_in_place(tmp_path, monkeypatch):
    """The kubelet's termination log is a mounted file in a read-only root."""
    path = tmp_path / "termination-log"
    path.write_bytes(b"x" * 100)
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
    termination.write(failure(0, 1), path)
    assert either.validate_json(path.read_bytes()).rank == 0
