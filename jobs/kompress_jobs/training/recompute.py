"""Activation checkpointing: of each block only its input is kept, and the block runs a second time in the backward pass.

T. Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, https://arxiv.org/abs/1604.06174. The second run is that of the first
to the bit (PyTorch replays its random numbers), and leaves running statistics alone: they have seen the batch already.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from kompress_api.errors import MethodRefused
from kompress_jobs.training.depth import blocks


@contextmanager
def recomputed(model: nn.Module, *, enabled: bool, field: str = "") -> Iterator[None]:
    """Let the model's blocks run so within the context. Raises MethodRefused for a model without blocks."""
    parts = [model.get_submodule(name) for name in blocks(model)] if enabled else []
    if enabled and not parts:
        raise MethodRefused(
            "the model is no stack of blocks that could be computed twice", hint="leave it out, or lower batchSize", field=field
        )
    for part in parts:
        norms = [module for module in part.modules() if isinstance(module, _BatchNorm) and module.num_batches_tracked is not None]
        part.forward = functools.partial(  # type: ignore[method-assign]
            checkpoint, part.forward, use_reentrant=False, context_fn=functools.partial(contexts, norms)
        )
    try:
        yield
    finally:
        for part in parts:
            del part.forward


def contexts(norms: Sequence[_BatchNorm]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the first and the second run of a block with these norms."""
    return nullcontext(), resting(norms)


@contextmanager
def resting(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Norms that normalise by the batch, as in training, and remember nothing of it."""
    kept = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, seen in kept:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(seen)  # type: ignore[union-attr]
