"""SLERP: from the first model to the second along the sphere, tensor by tensor, so that lengths do not shrink on the way.

K. Shoemake, Animating rotation with quaternion curves, 1985, https://doi.org/10.1145/325165.325242. Nearly parallel tensors are
interpolated linearly.
"""

import torch

from kompress_api.errors import MethodRefused
from kompress_api.stages.fuse import Fuse
from kompress_jobs.fusions import Fused, Material, assemble, refuse_weights

PARALLEL = 0.9995
"""Cosine from which the sphere is as good as flat."""


def refuse(spec: Fuse, *, field: str) -> None:
    refuse_weights(spec, field=field)
    if len(spec.models) != 2:
        raise MethodRefused(
            f"SLERP goes from one model to another, there are {len(spec.models)}", hint="name two models", field=f"{field}.models"
        )


def fuse(material: Material) -> Fused:
    first, second = material.models
    return Fused(assemble(material, lambda name: slerp(first[name], second[name], material.spec.interpolation)))


def slerp(first: torch.Tensor, second: torch.Tensor, share: float) -> torch.Tensor:
    """`share` 0 is `first`, 1 is `second`; float64."""
    a, b = first.double(), second.double()
    cosine = torch.dot(a.flatten(), b.flatten()) / (a.norm() * b.norm()).clamp(min=1e-12)
    if abs(float(cosine)) > PARALLEL:
        return torch.lerp(a, b, share)
    angle = torch.arccos(cosine)
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
