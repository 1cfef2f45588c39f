"""TIES: of each task vector the largest entries are kept, signs are elected by weight, and only those that agree are averaged.

P. Yadav et al., TIES-Merging: Resolving Interference When Merging Models, 2023, https://arxiv.org/abs/2306.01708.
"""

import torch

from kompress_api.stages.fuse import Fuse
from kompress_jobs.fusions import Fused, Material, assemble, refuse_no_base, task_vectors


def refuse(spec: Fuse, *, field: str) -> None:
    refuse_no_base(spec, field=field)


def fuse(material: Material) -> Fused:
    def one(name: str) -> torch.Tensor:
        assert material.base is not None
        merged = merge(torch.stack(task_vectors(material, name)), material.weights, material.spec.density)
        return material.base[name].double() + material.spec.scaling * merged

    return Fused(assemble(material, one))


def merge(vectors: torch.Tensor, weights: list[float], density: float) -> torch.Tensor:
    """Task vectors (models, ...) -> their merged vector (...)."""
    weighted = torch.stack([trimmed(vector, density) * weight for vector, weight in zip(vectors, weights, strict=True)])
    elected = weighted.sum(0).sign()
    agree = (weighted.sign() == elected) & (weighted != 0)
    shares = vectors.new_tensor(weights).abs().view(-1, *[1] * (vectors.ndim - 1)) * agree
    return (weighted * agree).sum(0) / shares.sum(0).clamp(min=1e-12)


def trimmed(vector: torch.Tensor, density: float) -> torch.Tensor:
    """The `density` of the entries that are largest in size, the others 0."""
    kept = max(1, round(vector.numel() * density))
    least = vector.abs().flatten().kthvalue(vector.numel() - kept + 1).values
    return torch.where(vector.abs() >= least, vector, 0.0)
