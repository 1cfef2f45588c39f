"""Mixup and CutMix: a sample becomes part of another, in the same share as its target.

H. Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018, https://arxiv.org/abs/1710.09412. S. Yun et al., CutMix, 2019,
https://arxiv.org/abs/1905.04899. Where both are asked for, a batch gets one of them, as in torchvision's references.
"""

import dataclasses
from collections.abc import Callable

import torch

from kompress_api.training import Training
from kompress_jobs.training.batches import Batch


def mixes(settings: Training) -> bool:
    """Whether samples are mixed."""
    return settings.mixup > 0 or settings.cutmix > 0


def build_mixing(settings: Training) -> Callable[[Batch], Batch]:
    """Mix the images of a micro-batch with those before them, by PyTorch's own random numbers, which the loop has seeded for the step."""
    if not mixes(settings):
        return lambda batch: batch
    from torchvision.transforms import v2

    ways = [way(alpha=alpha) for way, alpha in ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix)) if alpha > 0]

    def mix(batch: Batch) -> Batch:
        images = batch.samples
        assert isinstance(images, torch.Tensor)
        # The transform does to these rows what should be done to the targets: what is left of a one is what a sample kept of itself.
        rows = torch.eye(len(images))
        mixed, rows = ways[int(torch.randint(len(ways), ()))](images.float(), rows)
        return dataclasses.replace(batch, samples=mixed.round().to(torch.uint8), partners=batch.targets.roll(1, 0), own=float(rows[0, 0]))

    return mix
