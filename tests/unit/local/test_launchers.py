"""Processes must end, and be told of, as pods are: exit codes, last words, gangs that fall together, parents that die."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from torchx.specs import AppDef, Role, macros

from kompress_api.contract import StageFailure, StageSuccess
from kompress_api.reasons import Reason
from kompress_operator.local.launchers import Launchers, wait_for_orphans
from kompress_operator.local.state import LocalAttempt

PRELUDE = """
import os, pathlib, signal, sys, time
index = int(os.environ["KOMPRESS_POD_INDEX"])
def tell(text): pathlib.Path(os.environ["KOMPRESS_TERMINATION_LOG"]).write_text(text)
def interrupted(*_):
    tell('{"outcome": "Failed", "reason": "Interrupted", "message": "stopped", "exitCode": 75}')
    sys.exit(75)
signal.signal(signal.SIGTERM, interrupted)
pathlib.Path(os.environ["KOMPRESS_TERMINATION_LOG"]).with_name("ready").touch()
def wait():
    while True: time.sleep(0.05)
"""
SUCCEED = PRELUDE + """tell('{"outcome": "Succeeded", "artifact": "file:///a"}') if index == 0 else None"""
WAIT = PRELUDE + "wait()"
SECOND_FAILS = PRELUDE + "sys.exit(78) if index == 1 else wait()"
KILLED = PRELUDE + "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture
def launchers(tmp_path: pathlib.Path) -> Iterator[Launchers]:
    made = Launchers(tmp_path, tmp_path / "cache")
    yield made
    made.close()


def start(launchers: Launchers, script: str, nodes: int = 1) -> LocalAttempt:
    environment = {**launchers.environment("job-a-1"), "KOMPRESS_POD_INDEX": macros.replica_id}
    role = Role("worker", "x", entrypoint="python", args=["-c", script], env=environment, num_replicas=nodes)
    launchers.start(AppDef("job-a-1", roles=[role]))
    return record(nodes)


def record(nodes: int = 1) -> LocalAttempt:
    return LocalAttempt("job-a-1", "a", 1, "u1", time.time(), nodes)


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def watch_to_the_end(launchers: Launchers, attempt: LocalAttempt) -> None:
    def ended() -> bool:
        launchers.watch(attempt, time.time())
        return launchers.ended(attempt)

    until(ended)


def ready(folder: pathlib.Path, nodes: int = 1) -> Callable[[], bool]:
    return lambda: len(list(folder.glob("attempts/job-a-1/*/ready"))) == nodes


def test_a_gang_that_succeeds_is_complete_and_rank_0_tells_the_result(launchers: Launchers) -> None:
    attempt = start(launchers, SUCCEED, nodes=2)
    watch_to_the_end(launchers, attempt)
    observed = launchers.observe(attempt)
    assert (observed.complete, observed.failed, observed.succeeded) == (True, False, 2)
    assert observed.pods is not None
    assert [pod.termination for pod in observed.pods] == [StageSuccess(artifact="file:///a"), None]


def test_one_that_fails_leaves_the_others_their_last_words(launchers: Launchers, tmp_path: pathlib.Path) -> None:
    attempt = start(launchers, SECOND_FAILS, nodes=2)
    until(ready(tmp_path, nodes=2))
    until(lambda: launchers.watch(attempt, time.time()))
    launchers.watch(attempt, time.time())
    observed = launchers.observe(attempt)
    assert (observed.failed_pods, observed.ready, observed.ended) == (1, 1, False)
    assert [pod.exit_code for pod in observed.pods or ()] == [None, 78]
    attempt.deleting = time.time()
    watch_to_the_end(launchers, attempt)
    observed = launchers.observe(attempt)
    assert observed.failed and observed.pods is not None
    assert [pod.exit_code for pod in observed.pods] == [75, 78]


def test_a_deleted_attempt_gets_sigterm_once_and_its_grace(launchers: Launchers, tmp_path: pathlib.Path) -> None:
    attempt = start(launchers, WAIT)
    until(ready(tmp_path))
    assert launchers.observe(attempt).ready == 1
    attempt.deleting = time.time()
    watch_to_the_end(launchers, attempt)
    assert attempt.ends[0].exit_code == 75


def test_one_that_ignores_sigterm_is_killed_after_its_grace(launchers: Launchers, tmp_path: pathlib.Path) -> None:
    attempt = start(launchers, PRELUDE + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntell('deaf')\nwait()")
    until((tmp_path / "attempts/job-a-1/0/termination.json").exists)
    attempt.deleting = time.time() - 61
    watch_to_the_end(launchers, attempt)
    assert attempt.ends[0].exit_code == 137


def test_a_signal_reads_as_in_a_container(launchers: Launchers) -> None:
    attempt = start(launchers, KILLED)
    watch_to_the_end(launchers, attempt)
    assert attempt.ends[0].exit_code == 137


def test_its_log_is_kept(launchers: Launchers) -> None:
    attempt = start(launchers, PRELUDE + "print('hello')")
    watch_to_the_end(launchers, attempt)
    log = launchers.log_file("job-a-1")
    assert log is not None
    assert log.read_text() == "hello\n"


PARENT = """
import pathlib, signal, sys
from torchx.specs import AppDef, Role, macros
from kompress_operator.local.launchers import Launchers
launchers = Launchers(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[1]) / "cache")
environment = {**launchers.environment("job-a-1"), "KOMPRESS_POD_INDEX": macros.replica_id}
launchers.start(AppDef("job-a-1", roles=[Role("worker", "x", entrypoint="python", args=["-c", sys.argv[2]], env=environment)]))
signal.pause()
"""


@contextlib.contextmanager
def parent_that_is_killed(folder: pathlib.Path, script: str) -> Iterator[None]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(folder), script])
    until(ready(folder))
    yield
    parent.kill()
    parent.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_launchers_save_a_checkpoint_when_kompress_is_killed_and_the_next_run_hears_of_it(
    launchers: Launchers, tmp_path: pathlib.Path
) -> None:
    attempt = record()
    with parent_that_is_killed(tmp_path, WAIT):
        launchers.watch(attempt, time.time())
        assert not launchers.ended(attempt), "it runs, though another process started it"
    wait_for_orphans(launchers, [attempt])
    (pod,) = launchers.observe(attempt).pods or ()
    assert isinstance(pod.termination, StageFailure)
    assert (pod.exit_code, pod.disruption) == (75, None)


def test_one_that_vanished_without_a_word_is_a_lost_node(launchers: Launchers, tmp_path: pathlib.Path) -> None:
    """Power loss or kill -9 of everything: not the stage's fault."""
    attempt = record()
    with parent_that_is_killed(tmp_path, WAIT):
        os.kill(int((tmp_path / "attempts/job-a-1/0/alive").read_text()), signal.SIGKILL)
    wait_for_orphans(launchers, [attempt])
    (pod,) = launchers.observe(attempt).pods or ()
    assert (pod.exit_code, pod.disruption) == (None, Reason.NODE_LOST)
