"""TaskArithmetic: base + scaling * sum of weight * (model - base). A negative weight unlearns.

G. Ilharco et al., Editing Models with Task Arithmetic, 2023, https://arxiv.org/abs/2212.04089.
"""

import torch

from kompress_api.stages.fuse import Fuse
from kompress_jobs.fusions import Fused, Material, assemble, refuse_no_base, task_vectors


def refuse(spec: Fuse, *, field: str) -> None:
    refuse_no_base(spec, field=field)


def fuse(material: Material) -> Fused:
    def one(name: str) -> torch.Tensor:
        assert material.base is not None
        moved = material.base[name].double()
        for vector, weight in zip(task_vectors(material, name), material.weights, strict=True):
            moved = moved + material.spec.scaling * weight * vector
        return moved

    return Fused(assemble(material, one))
