"""Activation checkpointing: less memory for time, and nothing else is another."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from short_trainings import train
from tiny_models import convolutional, residual
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_jobs.context import StageContext
from kompress_jobs.training.recompute import recomputed

MakeContext = Callable[..., StageContext]


def kept_bytes(model: nn.Module) -> int:
    """Bytes that a forward pass keeps for the backward pass."""
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.zeros(64, 1, 8, 8)).sum().backward()
    return kept


def test_a_block_keeps_no_more_than_what_went_in() -> None:
    model = residual(10).train()
    whole = kept_bytes(model)
    with recomputed(model, enabled=True):
        assert kept_bytes(model) < 0.4 * whole
    assert kept_bytes(model) == whole, "it ends with the training"


def test_weights_and_running_statistics_are_the_same_bit_by_bit(make_context: MakeContext) -> None:
    def trained(scratch: str, **own: Any) -> dict[str, torch.Tensor]:
        stage = {"fineTune": {"epochs": 1, "learningRate": 1e-2} | own}
        return train(make_context(stage, model={"source": "python://tiny_models:residual"}, scratch=scratch))[1].model.state_dict()

    whole, again = trained("whole"), trained("again", activationCheckpointing=True)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(MethodRefused, match="no stack of blocks") as caught, recomputed(convolutional(10), enabled=True, field="x"):
        pass
    assert caught.value.field == "x"
