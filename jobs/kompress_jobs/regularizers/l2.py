"""L2: half the sum of squared weights, as in ridge regression. Unlike decoupled weight decay it goes through the optimizer's scaling."""

import torch

from kompress_jobs.regularizers import Weights


def penalty(weights: Weights, start: Weights) -> torch.Tensor:
    """See `regularizers`."""
    return 0.5 * torch.stack([weight.square().sum() for weight in weights.values()]).sum()
