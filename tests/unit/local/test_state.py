"""A job's memory must be whole after any crash, and belong to one run at a time."""

import multiprocessing
import pathlib

import pytest

import manifests
from kompress_api.errors import JobLocked, SpecCannotWork
from kompress_api.manifest import parse_spec
from kompress_api.status import CompressionJobStatus, Condition, Phase
from kompress_operator.local import state
from kompress_operator.local.backend import take_up
from kompress_operator.local.state import LauncherEnd, LocalAttempt, LocalJob

SPEC = manifests.good()["spec"]


def failed(reason: str) -> CompressionJobStatus:
    condition = Condition(type="Failed", status="True", reason=reason, last_transition_time="2026-01-01T00:00:00Z")
    return CompressionJobStatus(phase=Phase.FAILED, conditions=[condition])


def test_it_reads_what_it_wrote(tmp_path: pathlib.Path) -> None:
    attempt = LocalAttempt("good-a-1", "a", 1, "u2", 1.5, 2, deleting=3.0, ends={0: LauncherEnd(2.0, None), 1: LauncherEnd(2.5, 75)})
    job = LocalJob("good", "u1", 1.0, SPEC, "sha256:x", merged={"seed": 0}, status=failed("StageFailed"), attempts=[attempt])
    state.save(job, tmp_path)
    assert state.load(tmp_path) == job


def test_a_file_of_someone_else_is_not_overwritten(tmp_path: pathlib.Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(SpecCannotWork, match=r"job\.json"):
        state.load(tmp_path)


@pytest.mark.parametrize(
    ("status", "change", "goes_on"),
    [
        (CompressionJobStatus(phase=Phase.RUNNING), {}, True),
        (CompressionJobStatus(phase=Phase.SUSPENDED), {}, True),
        (CompressionJobStatus(phase=Phase.COMPLETE), {}, True),
        (failed("GoalMissed"), {}, True),
        (failed("StageFailed"), {}, False),
        (CompressionJobStatus(phase=Phase.RUNNING), {"seed": 1}, False),
        (CompressionJobStatus(phase=Phase.COMPLETE), {"ttlSecondsAfterFinished": 1}, True),
    ],
)
def test_the_same_manifest_goes_on_and_another_one_is_another_run(
    tmp_path: pathlib.Path, status: CompressionJobStatus, change: dict[str, object], goes_on: bool
) -> None:
    first = take_up("good", parse_spec(SPEC), tmp_path, now=1.0)
    first.status = status
    state.save(first, tmp_path)
    second = take_up("good", parse_spec(SPEC | change), tmp_path, now=2.0)
    assert (second.uid == first.uid) is goes_on
    assert (tmp_path / "earlier" / f"{first.uid}.json").exists() is not goes_on


def hold(folder: pathlib.Path, held: "multiprocessing.synchronize.Event", release: "multiprocessing.synchronize.Event") -> None:
    with state.locked(folder):
        held.set()
        release.wait()


def test_two_at_once_are_refused(tmp_path: pathlib.Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, release))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(JobLocked, match=f"process {other.pid}"), state.locked(tmp_path):
            pass
    finally:
        release.set()
        other.join()
    with state.locked(tmp_path):
        pass
