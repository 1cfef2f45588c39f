"""One pod's life, with real torchrun processes: what comes out when all goes well, and what is said when it does not."""

import os
import signal

import psutil
import pytest

from kompress_api.places import Dataset, Output
from kompress_jobs.evaluation import measurements
from kompress_jobs.planning.fingerprint import fingerprint
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.store import open_store

from .conftest import eventually, free_port


def test_a_gang_of_two_pods_commits_once_and_the_next_attempt_reuses_it(launch, stage):
    gang = {"KOMPRESS_NODES": "2", "KOMPRESS_MASTER": f"localhost:{free_port()}", "KOMPRESS_PROCESSES": "1"}
    pods = [launch(stage(), KOMPRESS_POD_INDEX=str(index), **gang) for index in range(2)]
    assert [pod.wait() for pod in pods] == [0, 0], pods[0].output()[-3000:]
    told = pods[0].told
    assert (told.outcome, told.reused, told.hit) == ("Succeeded", False, True)
    assert told.artifact.endswith(f"/artifacts/{told.key}/u-1-1")
    assert {"accuracy", "parameters", "source.accuracy"} <= set(told.metrics)
    assert not pods[1].termination.exists(), "rank 0's pod alone tells the result"
    assert not pods[0].scratch.exists()

    again = launch(stage(attempt=2, reuse=True))
    assert again.wait() == 0
    assert (again.told.reused, again.told.hit, again.told.digest) == (True, True, told.digest)


def test_sigterm_is_a_checkpoint_and_75_and_the_next_attempt_goes_on(launch, stage):
    nobody = {"uri": "http://127.0.0.1:9", "experiment": "flowers"}  # a tracking server that is away must not cost the grace period
    first = launch(stage(epochs=30, tracking=nobody), KOMPRESS_PROCESSES="2")
    eventually(first.training)
    first.process.send_signal(signal.SIGTERM)
    assert first.wait() == 75
    assert (first.told.reason, first.told.exit_code, first.told.secondary) == ("Interrupted", 75, True)
    assert first.told.checkpoint_step and first.told.checkpoint_step > 0

    second = launch(stage(epochs=30, attempt=2))  # another world size
    eventually(lambda: any("resumed from the checkpoint" in event["text"] for event in second.events("progress")))
    assert second.wait() == 0
    assert second.told.metrics["accuracy"] > 0.5


def test_two_processes_repeat_a_seed_go_on_with_it_when_stopped_and_measure_more_data(launch, stage, tmp_path):
    """One rank alone notes, commits and measures; one that went another way than the others would wait for ever."""
    evaluation = {"seeds": 2, "datasets": [{"source": "builtin://digits"}]}
    first = launch(stage(epochs=30, evaluation=evaluation), KOMPRESS_PROCESSES="2")
    eventually(first.training)
    first.process.send_signal(signal.SIGTERM)
    assert first.wait() == 75, first.output()[-3000:]
    assert first.told.checkpoint_step and first.told.checkpoint_step > 0, "of the repeat, which comes first"

    second = launch(stage(epochs=30, evaluation=evaluation, attempt=2), KOMPRESS_PROCESSES="2")
    eventually(lambda: any(event["text"].startswith("repeat1: resumed") for event in second.events("progress")))
    assert second.wait() == 0, second.output()[-3000:]
    store = open_store(Output(uri=f"file://{tmp_path}/output"), "output")
    commit = artifacts.find(store, second.told.key)
    assert [entry["seed"] for entry in commit.details["seeds"]] == [0, 1]
    dataset = Dataset.model_validate(evaluation["datasets"][0])
    for name, accuracy in (("test", "accuracy"), ("source", "source.accuracy")):
        said = measurements.read(commit, dataset, fingerprint(dataset).digest, name)
        assert said.right.mean() == pytest.approx(second.told.metrics[accuracy])


def test_a_killed_rank_is_the_root_cause_and_its_peers_error_is_not(launch, stage):
    run = launch(stage(epochs=1000), KOMPRESS_PROCESSES="2")
    eventually(run.training)
    os.kill(run.rank(1).pid, signal.SIGKILL)
    assert run.wait() == 128 + 9
    told = run.told
    assert (told.reason, told.rank, told.secondary, told.exit_code) == ("ProcessFailed", 1, False, 137)
    assert "rank 1 was killed by SIGKILL" in told.message


def test_a_single_process_needs_no_torch_in_its_launcher_and_its_death_is_told_like_a_gangs(launch, stage):
    """A preflight or a report would wait for seconds, and hold memory, for an agent that has nobody to bring together."""
    run = launch(stage(epochs=1000), KOMPRESS_PROCESSES="1")
    eventually(run.training)
    assert not [entry.path for entry in psutil.Process(run.process.pid).memory_maps() if "libtorch" in entry.path]
    os.kill(run.rank(0).pid, signal.SIGKILL)
    assert run.wait() == 128 + 9
    assert (run.told.reason, run.told.rank, run.told.secondary) == ("ProcessFailed", 0, False)


def test_a_killed_launcher_takes_its_workers_along(launch, stage):
    run = launch(stage(epochs=1000), KOMPRESS_PROCESSES="1")
    eventually(run.training)
    worker = run.rank(0)
    run.process.kill()
    eventually(lambda: not worker.is_running() or worker.status() == "zombie")


def test_an_error_of_a_rank_keeps_its_words_and_its_exit_code(launch, stage, tmp_path):
    (tmp_path / "data" / "train" / "cat").mkdir(parents=True)
    run = launch(stage(dataset={"source": f"file://{tmp_path}/data", "format": "imagefolder"}), KOMPRESS_PROCESSES="2")
    assert run.wait() == 65
    assert (run.told.reason, run.told.field, run.told.exit_code) == ("DataUnreadable", "spec.dataset.source", 65)
    assert run.told.hint
    assert run.told.rank in (0, 1)


def test_what_is_not_built_is_refused_by_name(launch, stage):
    run = launch(stage(fine_tune={"compile": True, "parallelism": "FSDP2"}))
    assert run.wait() == 78
    assert (run.told.reason, run.told.field) == ("MethodRefused", "spec.stages(adapt).fineTune.compile")
    assert "not built in this version" in run.told.message


def test_an_environment_without_a_stage_is_refused(launch, stage):
    run = launch(stage(), KOMPRESS_STAGE="")
    assert run.wait() == 78
    assert (run.told.reason, run.told.field) == ("InvalidManifest", "KOMPRESS_STAGE")


def test_a_gang_that_waits_for_rank_0_ends_at_once_when_stopped(launch, stage):
    pod = launch(
        stage(), KOMPRESS_NODES="2", KOMPRESS_MASTER=f"rank-0.invalid:{free_port()}", KOMPRESS_POD_INDEX="1", KOMPRESS_PROCESSES="1"
    )
    eventually(lambda: "waiting for rank 0" in pod.output())
    pod.process.send_signal(signal.SIGTERM)
    assert pod.wait() == 75
    assert "before the workers had started" in pod.told.message
