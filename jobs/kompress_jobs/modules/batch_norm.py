"""Batch norms of a model whose weights were not learned together with them: statistics taken anew, or norms folded away.

Averaged weights need statistics of their own (M. Wortsman et al., 2022; P. Izmailov et al., 2018, https://arxiv.org/abs/1803.05407,
section 3.3). A norm that follows a convolution can be part of it (B. Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 3.2).
"""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kompress_api.errors import MethodRefused
from kompress_jobs.gang import Gang
from kompress_jobs.modules.structure import Change, put, run_watched
from kompress_jobs.preprocessing import Preprocessing
from kompress_jobs.samples import Inputs, move
from kompress_jobs.samples.splits import Split

BATCH = 64
BATCHES = 20
"""Of train, that statistics are taken from."""
CHANGE = "fold_batch_norm"
ATOL = 1e-3
"""Largest difference of a score that folding may make (float32)."""


def norms(model: nn.Module) -> list[_BatchNorm]:
    """Those that keep statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


@torch.no_grad()
def reestimate(model: nn.Module, data: Split, preprocessing: Preprocessing, gang: Gang) -> None:
    """Collective: statistics from the first BATCHES batches of a split, each rank its share, averaged over batches and ranks."""
    found = norms(model)
    if not found:
        return
    momenta = [norm.momentum for norm in found]
    model.eval()
    for norm in found:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over what is seen
        norm.train()
    for indices in torch.arange(min(len(data), BATCH * BATCHES * gang.world_size)).split(BATCH * gang.world_size):
        samples, seen = data.read(gang.share(indices))
        if len(seen) > 1:
            model(*preprocessing(move(samples, gang.device)))
    for norm, momentum in zip(found, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
    gang.average_buffers(model)


def fold(model: nn.Module, sample: Inputs, *, field: str) -> Change | None:
    """Fold every batch norm into the convolution whose output it alone takes, in place; None where there is none.

    Raises MethodRefused when the model then answers differently: a convolution's output is used elsewhere, too.
    """
    pairs = pairs_of(model, sample)
    if not pairs:
        return None
    question = tuple(torch.randn_like(part) if part.is_floating_point() else part for part in sample)
    with torch.no_grad():
        before = _scores(model.eval()(*question))
        change: Change = {"change": CHANGE, "pairs": pairs}
        replay(model, change, sample)
        worst = float((_scores(model.eval()(*question)) - before).abs().max())
    if not worst <= ATOL:
        raise MethodRefused(
            f"with batch norms folded into convolutions the scores differ by up to {worst:.3g}: an output is used in two places",
            hint="set foldBatchNorm: false",
            field=field,
        )
    return change


def pairs_of(model: nn.Module, sample: Inputs) -> list[list[str]]:
    """Names of [convolution, batch norm], where the norm is called with the very output of the convolution."""
    made: dict[int, tuple[str, torch.Tensor]] = {}
    found: list[list[str]] = []

    def remember(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            made[id(output)] = name, output  # kept, so that no other tensor gets its id

        return hook

    def look(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...], __: Any) -> None:
            if id(inputs[0]) in made:
                found.append([made[id(inputs[0])][0], name])

        return hook

    hooks = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            hooks[name] = remember(name)
        elif isinstance(module, _BatchNorm) and module.track_running_stats:
            hooks[name] = look(name)
    run_watched(model, sample, hooks)
    return found


def replay(model: nn.Module, change: Change, sample: Inputs) -> nn.Module:
    """Fold the same pairs again; the weights are loaded afterwards. What a norm does besides (timm's activation) stays."""
    for convolution, norm in change["pairs"]:
        old = model.get_submodule(norm)
        put(model, convolution, fuse_conv_bn_eval(model.get_submodule(convolution).eval(), old.eval()))
        rest = [getattr(old, name) for name in ("drop", "act") if isinstance(getattr(old, name, None), nn.Module)]
        put(model, norm, nn.Sequential(*rest) if rest else nn.Identity())
    return model


def _scores(outputs: Any) -> torch.Tensor:
    found: torch.Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return found
