"""DARE: of each task vector a random share is dropped and the rest scaled up, before they are added to the base.

L. Yu et al., Language Models are Super Mario, 2024, https://arxiv.org/abs/2311.03099; the sum is that of TaskArithmetic. What is
dropped depends on the job's seed, the model's place and the tensor's name alone.
"""

import zlib

import torch

from kompress_api.stages.fuse import Fuse
from kompress_jobs.chance import mix
from kompress_jobs.fusions import Fused, Material, add_up, refuse_no_base

PURPOSE = 4
"""Of the seeds drawn here, among those of a job."""


def refuse(spec: Fuse, *, field: str) -> None:
    refuse_no_base(spec, field=field)


def fuse(material: Material) -> Fused:
    def thinned(name: str, index: int, vector: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(mix(material.seed, PURPOSE, index, zlib.crc32(name.encode())))
        return dropped(vector, material.spec.density, generator)

    return Fused(add_up(material, thinned))


def dropped(vector: torch.Tensor, density: float, generator: torch.Generator) -> torch.Tensor:
    """Each entry stays with probability `density`, scaled by 1 / density: the expected vector is the same."""
    stays = torch.rand(vector.shape, generator=generator) < density
    return vector * stays.to(vector.device) / density
