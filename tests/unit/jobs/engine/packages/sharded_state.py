"""A training's state sharded over two processes: `python -m sharded_state WHOLE SHARDED` loads the one checkpoint and saves the other."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.fsdp import fully_shard

from kompress_jobs.training.state import State
from kompress_jobs.training.tensor_files import TensorReader, TensorWriter


def build(*, seed: int, sharded: bool = False) -> State:
    """With rows that two processes can't share evenly, or at all."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    if sharded:
        fully_shard(model)
    return State(model, torch.optim.AdamW(model.parameters(), lr=0.1))


def step(state: State) -> float:
    """One step on data that is always the same; returns its loss."""
    loss = state.model(torch.linspace(-1, 1, 32).reshape(8, 4)).square().mean()
    loss.backward()
    state.optimizer.step()
    state.optimizer.zero_grad()
    return float(loss)


def load(state: State, folder: Path, *, alone: bool) -> None:
    tensors = state.prepare_for(state.numbers())
    dcp.load(tensors, storage_reader=TensorReader(folder), no_dist=alone)
    state.take(tensors)


def save(state: State, folder: Path, *, rank: int, alone: bool) -> None:
    dcp.save(state.tensors(), storage_writer=TensorWriter(folder, rank), no_dist=alone)


def main() -> None:
    whole, sharded = map(Path, sys.argv[1:])
    dist.init_process_group("gloo")
    state = build(seed=1, sharded=True)
    load(state, whole, alone=False)
    step(state)
    save(state, sharded, rank=int(os.environ["RANK"]), alone=False)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
