"""Weight: single weights become zero, wherever they stand. The file packs better and sparse engines run faster; dense ones do not.

S. Han et al., Learning both Weights and Connections, 2015, https://arxiv.org/abs/1506.02626; gradually, over `iterativeSteps`:
M. Zhu, S. Gupta, To Prune or Not to Prune, 2017, https://arxiv.org/abs/1710.01878. Biases and norms are left alone.
"""

import torch
from torch import nn

from kompress_jobs.modules.structure import Change
from kompress_jobs.pruning.masks import Masked, Masks, Worths
from kompress_jobs.pruning.selection import build_layer, choose
from kompress_jobs.samples import Inputs

RANKS = ("weights",)


class Pruner(Masked):
    """Sets single weights of a model to zero."""

    granularity = "Weight"

    def choose(self, worths: Worths, ratio: float) -> Masks:
        """The least worth in each layer, in all, or in all of one shape."""
        layers = [build_layer(name, weight.numel(), str(tuple(weight.shape)), self.spec) for name, weight in self.weights.items()]
        return {name: _mask(worths[name], gone) for name, gone in choose(layers, worths, ratio).cut.items()}

    def alone(self, worths: Worths, name: str, ratio: float) -> Masks:
        """See `Masked`."""
        worth = worths[name].flatten().cpu()
        return {name: _mask(worths[name], worth.argsort(stable=True)[: round(len(worth) * ratio)])}

    def why(self, name: str, zeros: int) -> str:
        """See `Masked`."""
        share = zeros / self.weights[name].numel()
        if share >= self.spec.max_pruning_ratio - 1 / self.weights[name].numel():
            return "cut to the most that maxPruningRatio allows"
        return f"{share:.1%} of its weights are among the least worth of {'the layer' if self.spec.scope == 'Local' else 'the scope'}"


def _mask(like: torch.Tensor, gone: torch.Tensor) -> torch.Tensor:
    found = torch.zeros(like.numel(), dtype=torch.bool)
    found[gone] = True
    return found.view(like.shape)


def replay(model: nn.Module, change: Change, sample: Inputs) -> nn.Module:
    """Nothing: zeros are weights."""
    return model
