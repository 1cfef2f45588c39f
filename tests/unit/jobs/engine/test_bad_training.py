"""Trainings that go wrong: the step is named, the last good checkpoint is kept, and what can help is tried once."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_contexts import build_context
from torch import nn

from kompress_api.errors import AccuracyCollapsed, DataUnreadable, LossNotFinite
from kompress_api.stages.fine_tune import FineTune
from kompress_jobs import data
from kompress_jobs.bench import Bench, Measured
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.samples.splits import Data, MemorySplit
from kompress_jobs.storage.checkpoints import CheckpointStore
from kompress_jobs.training.batches import Batch
from kompress_jobs.training.state import build_state

MakeContext = Callable[..., StageContext]


def train_into_trouble(context: StageContext, trouble: Callable[[int, nn.Module, torch.Tensor], torch.Tensor]) -> None:
    """Train; `trouble(step, model, loss)` is what becomes of each step's loss."""
    assert context.input.stage is not None and isinstance(context.input.stage.spec, FineTune)
    spec, bench = context.input.stage.spec, Bench(context)
    found = bench.take("model")
    state = build_state(found.model, spec)
    plan = bench.plan(found, spec, spec.epochs)
    learn = plan.objective

    def troubled(model: nn.Module, batch: Batch) -> torch.Tensor:
        return trouble(state.step + 1, model, learn(model, batch))

    object.__setattr__(plan, "objective", troubled)
    bench.train(plan, state)


def test_the_first_step_whose_loss_is_not_finite_is_named_and_a_checkpoint_from_before_it_is_kept(make_context: MakeContext) -> None:
    """The loss is looked at every 50 steps only: two checkpoints of a ruined model in between would push out the good one."""
    context = make_context({"fineTune": {"epochs": 1, "batchSize": 32, "checkpoint": {"everySteps": 4}}})
    with pytest.raises(LossNotFinite) as caught:
        train_into_trouble(context, lambda step, _, loss: loss * float("nan") if step >= 11 else loss)
    assert caught.value.message.startswith("the loss became nan in step 11 of 40; the checkpoint of step ")
    newest = context.checkpoints.newest()
    assert newest is not None
    assert newest.step in (4, 8)
    assert f"step {newest.step} is kept" in caught.value.message


def test_weights_that_are_not_finite_are_never_saved_though_the_loss_still_was(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the good checkpoint is named, though its commit is still under way then."""
    context = make_context({"fineTune": {"epochs": 1, "batchSize": 32, "checkpoint": {"everySteps": 3}}})
    uploaded, asked = threading.Event(), threading.Event()
    commit, newest, upload = CheckpointStore.commit, CheckpointStore.newest, CheckpointStore.upload

    def told(store: CheckpointStore, *files: Any) -> None:
        upload(store, *files)
        uploaded.set()

    def late(store: CheckpointStore, step: int) -> object:
        asked.clear()
        asked.wait(1)  # who asks before the commit finds nothing
        return commit(store, step)

    def look(store: CheckpointStore) -> object:
        found = newest(store)
        asked.set()
        return found

    for name, function in {"upload": told, "commit": late, "newest": look}.items():
        monkeypatch.setattr(CheckpointStore, name, function)

    def ruin(step: int, model: nn.Module, loss: torch.Tensor) -> torch.Tensor:
        if step == 4:
            assert uploaded.wait(60)  # so that a commit is under way at step 6
        if step == 6:
            loss.register_hook(lambda gradient: gradient * float("inf"))  # as a gradient that overflows does
            context.stop.request()  # so that a checkpoint follows
        return loss

    with pytest.raises(LossNotFinite, match="weights became NaN or infinite in step 6 of 40; the checkpoint of step 3 is kept"):
        train_into_trouble(context, ruin)


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import torch
from stage_contexts import build_context
from kompress_jobs.bench import Bench
from kompress_jobs.failures import describe
from kompress_jobs.training.state import build_state

folder, room = Path(sys.argv[1]), int(sys.argv[2]) * 2**20

def limit(room):
    if torch.cuda.is_available():
        share = 1.0 if room is None else (torch.cuda.memory_reserved() + room) / torch.cuda.get_device_properties(0).total_memory
        return torch.cuda.set_per_process_memory_fraction(share)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY if room is None else used + room, resource.RLIM_INFINITY))

for attempt in (1, 2):
    stage = {"fineTune": {"epochs": 1, "batchSize": 256}}
    context = build_context(folder, stage, model={"source": "python://tiny_models:hungry"}, attempt=attempt, scratch=str(attempt))
    bench = Bench(context)
    found = bench.take("model")
    state = build_state(found.model, context.input.stage.spec)
    limit(room)
    try:
        bench.train(bench.plan(found, context.input.stage.spec, 1), state)
        print("trained", state.step)
    except Exception as error:
        told = describe(error)
        print(told.exit_code, told.reason, told.message)
    limit(None)
    print([line for line in (folder / str(attempt) / "events.jsonl").read_text().splitlines() if "halved" in line])
"""


@pytest.mark.parametrize(
    ("mebibytes", "second"),
    [
        (1536, "trained 5"),
        (512, "78 OutOfMemory out of memory in step 1 with micro-batches of 128 samples"),
    ],
)
def test_out_of_memory_the_next_attempt_takes_half_a_micro_batch_and_then_it_is_named(mebibytes: int, second: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OUT_OF_MEMORY, str(tmp_path), str(mebibytes)]
    whole = os.environ | {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}  # else what is left of a block is too small for the next
    told = subprocess.run(command, check=True, timeout=300, stdout=subprocess.PIPE, text=True, env=whole).stdout.splitlines()
    assert told[0] == ("70 MicroBatchTooLarge out of memory in step 1 with micro-batches of 256 samples: the next attempt takes half"), (
        "a code that the operator tries again after"
    )
    assert told[1] == "[]"
    assert told[2] == second
    assert "gradientAccumulationSteps is 2" in told[3], "it is said"


def measured(accuracy: float, low: float, high: float) -> Measured:
    return Measured({"accuracy": accuracy}, {"intervals": {"accuracy": [low, high]}})


TEN, TWO = [str(digit) for digit in range(10)], ["no", "yes"]
PRUNE: dict[str, Any] = {"prune": {"pruningRatio": 0.5}}
TUNE: dict[str, Any] = {"fineTune": {"epochs": 1}}


@pytest.mark.parametrize(
    ("stage", "labels", "before", "after", "says"),
    [
        (PRUNE, TEN, (0.9, 0.87, 0.93), (0.11, 0.08, 0.15), "fell from 0.900 to 0.110, chance is 0.100"),
        (PRUNE, TWO, (0.9, 0.87, 0.93), (0.52, 0.47, 0.57), "fell from 0.900 to 0.520, chance is 0.500"),
        (PRUNE, TWO, (0.9, 0.87, 0.93), (0.6, 0.55, 0.65), ""),
        (PRUNE, TEN, (0.1, 0.07, 0.13), (0.1, 0.07, 0.13), ""),
        (TUNE, TEN, (0.1, 0.07, 0.13), (0.1, 0.07, 0.13), "nothing was learned: accuracy is 0.100, chance 0.100"),
        (TUNE, TEN, (0.1, 0.07, 0.13), (0.2, 0.16, 0.24), ""),
        (TUNE, TWO, (0.5, 0.48, 0.52), (0.5, 0.48, 0.52), "nothing was learned"),
        (TUNE, [str(label) for label in range(1000)], (0.001, 0.0005, 0.0015), (0.003, 0.0025, 0.0035), ""),
    ],
)
def test_a_model_at_chance_fails_the_stage(
    stage: dict[str, Any],
    labels: list[str],
    before: tuple[float, float, float],
    after: tuple[float, float, float],
    says: str,
    make_context: MakeContext,
) -> None:
    bench = Bench(make_context(stage))
    bench.data = Data(labels, bench.data.train, bench.data.validation, bench.data.test)
    if not says:
        bench.refuse_collapse(measured(*before), measured(*after))
        return
    with pytest.raises(AccuracyCollapsed) as caught:
        bench.refuse_collapse(measured(*before), measured(*after))
    assert says in caught.value.message
    assert "learningRate" in caught.value.hint


def test_a_stage_that_learns_nothing_says_so(run_stage: Callable[..., StageOutput]) -> None:
    with pytest.raises(AccuracyCollapsed, match="nothing was learned"):
        run_stage({"fineTune": {"epochs": 1, "learningRate": 1e-9}})


def split(*labels: int) -> MemorySplit:
    return MemorySplit(torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8), torch.tensor(labels))


def test_a_label_without_a_sample_in_train_is_refused_where_it_is_asked_for_and_told_elsewhere() -> None:
    labels = ["cat", "dog", "owl"]
    assert Data(labels, split(0, 2), split(0), split(2)).absent == ["dog"]
    data.require_learnable(Data(labels, split(0, 2), split(0), split(2)), field="spec.dataset")
    with pytest.raises(DataUnreadable, match="label dog has samples in test and none that can be read in train") as caught:
        data.require_learnable(Data(labels, split(0, 2), split(0), split(1)), field="spec.dataset")
    assert caught.value.exit_code == 65


def test_a_label_that_no_sample_has_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Data) -> None:
    with_one_more = Data([*digits.labels, "ten"], digits.train, digits.validation, digits.test)
    monkeypatch.setattr(data, "load", lambda *_, **__: with_one_more)
    context = build_context(tmp_path, {"fineTune": {"epochs": 1}})
    Bench(context)
    assert "train has no sample of ten" in (context.scratch / "events.jsonl").read_text()
