"""A training that was stopped goes on as if it had not been, on as many processes as there are now."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_training import MODEL, STOP_AFTER, record
from safetensors import safe_open

from kompress_api.errors import Interrupted
from kompress_api.places import Output
from kompress_jobs.bench import Bench
from kompress_jobs.context import StageContext
from kompress_jobs.description import Loaded
from kompress_jobs.granularities import channel, weight
from kompress_jobs.pruning import search
from kompress_jobs.pruning.selection import Choice
from kompress_jobs.stages import prune
from kompress_jobs.storage.store import open_store

MakeContext = Callable[..., StageContext]


def test_one_process_goes_on_with_the_same_losses(tmp_path: Path) -> None:
    whole = record(tmp_path, scratch="whole")
    stopped = record(tmp_path, scratch="stopped", stop_rank=0)
    resumed = record(tmp_path, scratch="resumed", resume=True, attempt=2)
    assert f"step {STOP_AFTER}" in stopped["interrupted"]
    assert list(resumed["losses"]) == [str(step) for step in range(STOP_AFTER, len(whole["losses"]))]
    assert stopped["losses"] | resumed["losses"] == whole["losses"]
    assert resumed["figures"] == whole["figures"], "the average of the weights is resumed too"


RESIDUAL = {"source": "python://tiny_models:residual"}


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        ({"regularizers": [{"type": "L2SP", "weight": 0.01}, {"type": "L2", "weight": 1e-4}], "mixup": 0.4, "cutmix": 1.0}, MODEL),
        ({"precision": "FP16", "gradientClipNorm": 1.0}, MODEL),
        ({"activationCheckpointing": True, "earlyStopping": {"patience": 5}}, RESIDUAL),
        ({"compile": True}, MODEL),
    ],
    ids=",".join,
)
def test_whatever_a_training_is_told_it_goes_on_bit_by_bit(settings: dict[str, Any], model: dict[str, Any], tmp_path: Path) -> None:
    whole = record(tmp_path, scratch="whole", settings=settings, model=model)
    stopped = record(tmp_path, scratch="stopped", stop_rank=0, settings=settings, model=model)
    resumed = record(tmp_path, scratch="resumed", resume=True, attempt=2, settings=settings, model=model)
    assert stopped["losses"] | resumed["losses"] == whole["losses"]
    assert set(stopped["losses"]).isdisjoint(resumed["losses"])
    assert resumed["figures"] == whole["figures"]


def record_by_two(folder: Path, *trainings: str, **settings: Any) -> dict[str, Any]:
    """What two processes recorded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "recorded_training", str(folder), json.dumps(settings), *trainings]
    ranks = [subprocess.Popen(command, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
    try:
        assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    told: dict[str, Any] = json.loads((folder / "told.json").read_text())
    return told


def test_two_processes_agree_to_stop_and_two_or_one_go_on(tmp_path: Path) -> None:
    told = record_by_two(tmp_path)
    whole, stopped, resumed = (told[name] for name in ("whole", "stopped", "resumed"))
    assert stopped["interrupted"], "one rank was asked, both stopped"
    assert 0 < min(map(int, resumed["losses"])) <= STOP_AFTER + 2
    assert stopped["losses"] | resumed["losses"] == pytest.approx(whole["losses"], rel=1e-6)
    alone = record(tmp_path, scratch="alone", resume=True, attempt=3)
    assert alone["losses"] == pytest.approx(resumed["losses"], rel=1e-4)
    assert alone["figures"]["accuracy"] == pytest.approx(whole["figures"]["accuracy"], abs=0.01)


def test_one_process_stops_and_two_go_on(tmp_path: Path) -> None:
    whole = record(tmp_path, scratch="whole")
    stopped = record(tmp_path, scratch="stopped", stop_rank=0)
    resumed = record_by_two(tmp_path, "resumed")["resumed"]
    assert stopped["losses"] | resumed["losses"] == pytest.approx(whole["losses"], rel=1e-4)
    assert set(stopped["losses"]).isdisjoint(resumed["losses"]), "the checkpoint was used"


def test_sharded_over_two_a_training_is_the_same_and_one_goes_on_with_it(tmp_path: Path) -> None:
    """FSDP2: neither the result nor what can go on from a checkpoint depends on how the weights were spread."""
    own = {"gradientClipNorm": 1.0, "gradientAccumulationSteps": 2, "regularizers": [{"type": "L2SP", "weight": 0.01}]}
    told = record_by_two(tmp_path, parallelism="FSDP2", earlyStopping={"patience": 5}, **own)
    whole, stopped, resumed = (told[name] for name in ("whole", "stopped", "resumed"))
    assert stopped["interrupted"], "one rank was asked, both stopped"
    assert 0 < min(map(int, resumed["losses"])) <= STOP_AFTER + 2
    assert stopped["losses"] | resumed["losses"] == pytest.approx(whole["losses"], rel=1e-6)
    assert resumed["figures"] == pytest.approx(whole["figures"], rel=1e-5)
    [part] = (tmp_path / "output/checkpoints").glob(f"*/uid-1/step-{min(map(int, resumed['losses']))}/rank-1.safetensors")
    with safe_open(part, "pt") as file:
        assert {"model.layers.1.weight@16,0", "optimizer.state.layers.1.weight.exp_avg@16,0"} <= set(file.keys()), "each has its half"
    settings = {"earlyStopping": {"patience": 5}, **own}
    unsharded = record(tmp_path, scratch="unsharded", settings=settings)
    assert whole["losses"] == pytest.approx(unsharded["losses"], rel=1e-4)
    assert whole["figures"]["accuracy"] == pytest.approx(unsharded["figures"]["accuracy"], abs=0.01)
    alone = record(tmp_path, scratch="alone", resume=True, attempt=3, settings=settings)
    assert alone["losses"] == pytest.approx(resumed["losses"], rel=1e-4)
    assert alone["figures"]["accuracy"] == pytest.approx(whole["figures"]["accuracy"], abs=0.01)


RESUME_WITHOUT_PICKLE = """
import sys
from pathlib import Path
from recorded_training import record

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise AssertionError(f"something unpickles {arguments}")

sys.addaudithook(refuse)
assert min(map(int, record(Path(sys.argv[1]), scratch="resumed", resume=True, attempt=2)["losses"])) > 0
"""


def test_a_checkpoint_that_someone_put_there_runs_no_code_because_nothing_is_pickled(tmp_path: Path) -> None:
    record(tmp_path, scratch="stopped", stop_rank=0)
    files = [path for path in (tmp_path / "output/checkpoints").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            with safe_open(path, "pt") as opened:
                assert opened.keys()
    subprocess.run([sys.executable, "-c", RESUME_WITHOUT_PICKLE, str(tmp_path)], check=True, timeout=300)


SAVE_TO_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from recorded_training import record
from kompress_jobs.failures import describe

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # no file grows beyond it, as on a disk that is full
try:
    record(Path(sys.argv[1]), stop_rank=0)
except OSError as error:
    told = describe(error)
    print(told.exit_code, told.message)
"""


def test_a_disk_that_is_full_is_named_and_no_half_checkpoint_counts(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVE_TO_A_FULL_DISK, str(tmp_path)]
    told = subprocess.run(command, check=True, timeout=300, stdout=subprocess.PIPE, text=True).stdout
    assert told.startswith("74 "), told
    assert "File too large" in told
    assert not list((tmp_path / "output").rglob("manifest.json"))


def test_checkpoints_are_committed_beside_the_loop_and_one_that_vanishes_gives_way_to_the_one_before(tmp_path: Path) -> None:
    whole = record(tmp_path, scratch="whole", every_steps=10)
    store = open_store(Output(uri=f"file://{tmp_path}/output"), "output")
    keys = [entry.key for entry in store.list("checkpoints/")]
    committed = sorted(int(key.split("step-")[1].split("/")[0]) for key in keys if key.endswith("manifest.json"))
    assert len(committed) == 2, committed
    older, newest = committed
    store.delete([key for key in keys if f"step-{newest}/" in key and "safetensors" in key])
    resumed = record(tmp_path, scratch="resumed", resume=True, attempt=2, every_steps=10_000)
    assert resumed["losses"] == {step: loss for step, loss in whole["losses"].items() if int(step) >= older}


def test_pruning_goes_on_in_the_middle_of_its_second_step(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    recovery = {"epochs": 2, "batchSize": 256, "learningRate": 1e-2}
    stage = {"prune": {"pruningRatio": 0.5, "iterativeSteps": 2, "roundTo": 4, "recovery": recovery}}
    first = make_context(stage, scratch="whole")
    whole = prune.run(first)
    first.checkpoints.remove_own()  # as the worker does when the artifact is committed
    context = make_context(stage, scratch="stopped")
    step = channel.Pruner.apply
    steps: list[int] = []

    def stopping(self: channel.Pruner, choice: Choice) -> None:
        step(self, choice)
        steps.append(1)
        if len(steps) == 2:
            context.stop.request()

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(channel.Pruner, "apply", stopping)
        prune.run(context)
    resumed = prune.run(make_context(stage, scratch="resumed", attempt=2))
    assert resumed.details["removed"] == whole.details["removed"]
    assert resumed.details["layers"] == whole.details["layers"]
    assert resumed.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-5)
    assert torch.isfinite(torch.tensor(resumed.metrics["loss"]))


def test_zeros_are_zeros_again_when_gradual_pruning_goes_on(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    recovery = {"epochs": 2, "batchSize": 256, "learningRate": 1e-2}
    own = {"granularity": "Weight", "importance": "L1", "sparsity": 0.8, "schedule": "Cubic"}
    stage = {"prune": own | {"iterativeSteps": 2, "recovery": recovery}}
    whole = prune.run(make_context(stage, scratch="whole"))
    context = make_context(stage, scratch="stopped")
    hold = weight.Pruner.hold

    def stopping(self: weight.Pruner, optimizer: torch.optim.Optimizer) -> None:
        hold(self, optimizer)
        optimizer.register_step_post_hook(lambda *_: context.stop.request())

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(weight.Pruner, "hold", stopping)
        prune.run(context)
    resumed = prune.run(make_context(stage, scratch="resumed", attempt=2))
    assert resumed.details["sparsity"] == whole.details["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert resumed.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-5)


@pytest.mark.parametrize(("when", "made_again"), [("between trials", 1), ("in the training of a trial", 2)])
def test_a_search_goes_on_with_the_trials_that_it_has(
    when: str, made_again: int, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovery = {"epochs": 2, "batchSize": 256, "learningRate": 1e-2}
    stage = {"prune": {"search": {"maxDegradation": 0.5, "maxTrials": 3}, "importance": "L1", "roundTo": 4, "recovery": recovery}}
    first = make_context(stage, scratch="whole")
    whole = prune.run(first)
    first.checkpoints.remove_own()  # as the worker does when the artifact is committed
    context = make_context(stage, scratch="stopped")
    tell, measured, trained = search.tell, search.measured, []

    def told(bench: Bench, trials: list[search.Trial]) -> None:
        tell(bench, trials)
        if when == "between trials" and len(trials) == 3:
            context.stop.request()

    def held(self: channel.Pruner, optimizer: torch.optim.Optimizer) -> None:
        trained.append(optimizer)
        if when == "in the training of a trial" and len(trained) == 2:
            context.stop.request()

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(search, "tell", told)
        patched.setattr(channel.Pruner, "hold", held)
        prune.run(context)
    again: list[float] = []

    def counting(bench: Bench, found: Loaded, ratio: float) -> search.Trial:
        again.append(ratio)
        return measured(bench, found, ratio)

    monkeypatch.setattr(search, "measured", counting)
    resumed = prune.run(make_context(stage, scratch="resumed", attempt=2))
    assert resumed.details["search"] == whole.details["search"]
    assert again == [trial["ratio"] for trial in whole.details["search"]["trials"]][-made_again:], "the others were not made again"
    assert resumed.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-5)
