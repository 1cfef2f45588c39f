"""What a pod says of its workers' ends."""

import signal

import pytest

from kompress_jobs.pod.outcome import oom_kills, silent_death, told
from kompress_jobs.pod.workers import Ended


def death(number: int) -> Ended:
    return Ended(rank=2, exit_code=-number, time_us=5)


def test_a_worker_killed_for_its_memory_is_named():
    said = silent_death(death(signal.SIGKILL), first=True, stopped=False, oom=True)
    assert (said.reason, said.rank, said.exit_code, said.secondary, said.time_us) == ("OOMKilled", 2, 137, False, 5)
    assert "batchSize" in said.hint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_the_agent_ended_after_another_is_secondary(number):
    assert silent_death(death(number), first=False, stopped=False, oom=False).secondary


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_a_stop_ended_is_interrupted_and_free(number):
    said = silent_death(death(number), first=True, stopped=True, oom=False)
    assert (said.reason, said.exit_code) == ("Interrupted", 75)


def test_a_crash_names_its_signal():
    said = silent_death(death(signal.SIGSEGV), first=True, stopped=False, oom=False)
    assert (said.exit_code, said.secondary) == (139, False)
    assert "SIGSEGV" in said.message


def test_a_process_that_could_not_even_start_keeps_its_exit_code():
    said = silent_death(Ended(rank=0, exit_code=1, time_us=5), first=True, stopped=False, oom=False)
    assert (said.exit_code, said.reason) == (1, "ProcessFailed")


def test_the_kernels_count_of_memory_kills_is_read(tmp_path):
    events = tmp_path / "memory.events"
    events.write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n")
    assert oom_kills(events) == 2
    assert oom_kills(tmp_path / "no cgroup") == 0


def test_a_result_tells_plain_figures_and_those_that_goals_read():
    figures = {"accuracy": 0.9, "baseline.accuracy": 0.95, "source.accuracy": 0.1, "pytorch.accuracy": 0.9}
    figures |= {"latencyP50Ms@ONNX/cpu1/32": 3.0, "baseline.latencyP50Ms@ONNX/cpu1/32": 9.0, "latencyP99Ms@ONNX/cpu1/32": 4.0}
    said = told(figures, ("latencyP50Ms@ONNX/cpu1/32",))
    assert set(said) == set(figures) - {"pytorch.accuracy", "latencyP99Ms@ONNX/cpu1/32"}
