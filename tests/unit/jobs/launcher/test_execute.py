"""A stage is done once: what is committed under its key is verified and taken, all else runs and is committed."""

from pathlib import Path

import pytest
import torch

from kompress_api.contract import StageInput
from kompress_jobs.context import Events, StageContext, StageOutput, StopSignal
from kompress_jobs.pod.execute import execute
from kompress_jobs.storage.checkpoints import CheckpointStore
from kompress_jobs.storage.store import Store, open_store

KEY = "0" * 64


class Work:
    """A stage that counts how often it runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, context: StageContext) -> StageOutput:
        self.runs += 1
        folder = context.scratch / f"bundle-{self.runs}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        return StageOutput(folder, {"accuracy": 0.5}, {"samples": 10})


@pytest.fixture
def store(stage) -> Store:
    return open_store(StageInput.model_validate(stage()).output, "output")


@pytest.fixture
def context(stage, store, tmp_path):
    def build(**fields) -> StageContext:
        told = StageInput.model_validate(stage(**fields))
        scratch: Path = tmp_path / f"scratch-{told.attempt}"
        scratch.mkdir()
        return StageContext(
            input=told,
            rank=0,
            world_size=1,
            local_rank=0,
            device=torch.device("cpu"),
            scratch=scratch,
            events=Events(scratch),
            stop=StopSignal(),
            checkpoints=CheckpointStore(store, KEY, told.job.uid, told.attempt),
        )

    return build


def test_what_is_committed_is_taken_and_not_made_again(context, store):
    work = Work()
    first = execute(context(), store, KEY, work)
    again = execute(context(attempt=2, reuse=True), store, KEY, work)
    assert work.runs == 1
    assert (first.reused, again.reused, again.hit) == (False, True, True)
    assert (again.artifact, again.digest, again.metrics) == (first.artifact, first.digest, first.metrics)


def test_a_reuse_that_finds_nothing_says_so_and_runs_nothing(context, store):
    work = Work()
    told = execute(context(reuse=True), store, KEY, work)
    assert (told.hit, told.artifact, work.runs) == (False, "", 0)


def test_a_damaged_artifact_is_no_hit_and_is_replaced(context, store):
    work = Work()
    first = execute(context(), store, KEY, work)
    store.write(f"{first.artifact.removeprefix(store.uri + '/')}/model.safetensors", b"weighty")
    assert not execute(context(attempt=2, reuse=True), store, KEY, work).hit
    third = execute(context(attempt=3), store, KEY, work)
    assert (work.runs, third.reused) == (2, False)
    assert third.artifact.endswith("/u-1-3")


def test_the_end_of_a_stage_removes_its_checkpoints(context, store):
    built = context()
    (built.scratch / "step").mkdir()
    (built.scratch / "step" / "state").write_bytes(b"x")
    built.checkpoints.upload(5, built.scratch / "step")
    built.checkpoints.commit(5)
    execute(built, store, KEY, Work())
    assert list(store.list("checkpoints/")) == []
