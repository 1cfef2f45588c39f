"""NM: of every four weights in a row two become zero (2:4), the pattern that NVIDIA GPUs since Ampere multiply twice as fast.

A. Mishra et al., Accelerating Sparse Deep Neural Networks, 2021, https://arxiv.org/abs/2104.08378. A row runs along the inputs
of a layer (of a convolution: along its channels, position by position); layers whose inputs are no multiple of four are left alone.
On a CPU nothing becomes faster.
"""

from types import ModuleType

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.stages.prune import Prune
from kompress_jobs.modules.structure import Change
from kompress_jobs.pruning.masks import Masked, Masks, Worths
from kompress_jobs.samples import Inputs

RANKS = ("weights",)
GROUP, GONE = 4, 2


class Pruner(Masked):
    """Sets two of four weights of a model to zero."""

    granularity = "NM"
    trial_ratios = (GONE / GROUP,)

    def __init__(self, model: nn.Module, sample: Inputs, importance: ModuleType, spec: Prune, head: str, *, field: str) -> None:
        if spec.iterative_steps > 1:
            raise MethodRefused(
                f"a pattern of {GROUP - GONE}:{GROUP} is there or it is not: it can't be reached in {spec.iterative_steps} steps",
                hint="leave iterativeSteps out; recovery trains with the pattern in place",
                field=f"{field}.iterativeSteps",
            )
        super().__init__(model, sample, importance, spec, head, field=field)

    def unfit(self, module: nn.Module) -> str:
        """See `Masked`."""
        inputs = module.weight.shape[1]
        return f"its {inputs} inputs are no multiple of {GROUP}" if inputs % GROUP else ""

    def choose(self, worths: Worths, ratio: float) -> Masks:
        """The two least worth of every four."""
        return {name: self.alone(worths, name, ratio)[name] for name in self.weights}

    def alone(self, worths: Worths, name: str, ratio: float) -> Masks:
        """See `Masked`."""
        rows = worths[name].movedim(1, -1)
        fours = rows.reshape(-1, GROUP)
        mask = torch.zeros_like(fours, dtype=torch.bool).scatter_(1, fours.argsort(dim=1, stable=True)[:, :GONE], True)
        return {name: mask.view(rows.shape).movedim(-1, 1)}

    def why(self, name: str, zeros: int) -> str:
        """See `Masked`."""
        return f"{GONE} of every {GROUP}"


def replay(model: nn.Module, change: Change, sample: Inputs) -> nn.Module:
    """Nothing: zeros are weights."""
    return model
