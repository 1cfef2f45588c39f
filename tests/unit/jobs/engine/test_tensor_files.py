"""What a checkpoint keeps comes back bit by bit, however it was spread over processes; what it can't keep is refused by name."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sharded_state import build, load, save, step
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from kompress_api.training import Training
from kompress_jobs.training.state import build_state
from kompress_jobs.training.tensor_files import TensorReader, TensorWriter


@pytest.mark.parametrize("settings", [{"optimizer": "SGD", "momentum": 0}, {"optimizer": "SGD"}, {"optimizer": "AdamW"}, {"ema": {}}])
def test_the_next_step_after_a_checkpoint_is_bit_exact(tmp_path: Path, settings: dict[str, Any]) -> None:
    spec = Training.model_validate({"learningRate": 0.1} | settings)
    states = [build_state(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)), spec) for _ in range(2)]
    step(states[0])
    save(states[0], tmp_path, rank=0, alone=True)
    load(states[1], tmp_path, alone=True)
    assert step(states[0]) == step(states[1])
    after, resumed = (state.tensors() for state in states)
    assert after.keys() == resumed.keys()
    assert all(torch.equal(after[name], resumed[name]) for name in after)


def test_a_state_sharded_over_two_processes_and_a_whole_one_read_each_others_files(tmp_path: Path) -> None:
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    whole.mkdir()
    sharded.mkdir()
    state = build(seed=0)
    step(state)
    save(state, whole, rank=0, alone=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "sharded_state", str(whole), str(sharded)]
    ranks = [subprocess.Popen(command, env=shared | {"RANK": str(rank)}) for rank in range(2)]
    try:
        assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    assert sorted(path.name for path in sharded.iterdir()) == ["rank-0.safetensors", "rank-1.safetensors"]
    again = build(seed=2)
    load(again, sharded, alone=True)
    step(state)
    wanted, found = state.tensors(), again.tensors()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-6, atol=1e-7)


def test_every_kind_of_tensor_comes_back(tmp_path: Path) -> None:
    kept = {
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "counter": torch.tensor(7),
        "half": torch.randn(3).to(torch.bfloat16),
        "mask": torch.tensor([True, False]),
        "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "view": torch.randn(4, 5).T,
        "name@odd": torch.randn(2),
    }
    dcp.save(kept, storage_writer=TensorWriter(tmp_path, 0), no_dist=True)
    found = {name: torch.zeros_like(tensor) for name, tensor in kept.items()}
    dcp.load(found, storage_reader=TensorReader(tmp_path), no_dist=True)
    assert all(torch.equal(found[name], kept[name]) for name in kept)


def test_a_model_that_keeps_something_else_than_tensors_is_told_so_and_not_half_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointException, match=r"model\._extra_state is no tensor"):
        dcp.save({"model._extra_state": 1}, storage_writer=TensorWriter(tmp_path, 0), no_dist=True)


PEAK = """
import resource, sys
from pathlib import Path
import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from kompress_jobs.training.tensor_files import TensorWriter

folder = Path(sys.argv[1])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def save(tensors):
    before = peak()
    dcp.async_save(tensors, storage_writer=TensorWriter(folder, 0), async_stager=BlockingAsyncStager(), no_dist=True).result()
    return peak() - before

save({"warm": torch.ones(8)})
tensors = {str(index): torch.ones(1024, 4096) for index in range(16)}
print(save(tensors) / sum(tensor.nbytes for tensor in tensors.values()))
"""


def test_a_checkpoint_needs_room_for_one_copy_of_the_state_and_no_more(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], check=True, capture_output=True, text=True, timeout=300)
    assert float(ran.stdout) < 1.5
