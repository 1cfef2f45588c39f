"""UniformSoup: the mean of the weights of models that were fine-tuned from one beginning.

M. Wortsman et al., Model soups, 2022, https://arxiv.org/abs/2203.05482. Reference: CLIP ViT-B/32 on ImageNet, 72 models: best
single 80.39, uniform 79.97.
"""

from kompress_api.stages.fuse import Fuse
from kompress_jobs.fusions import Fused, Material, average, refuse_weights


def refuse(spec: Fuse, *, field: str) -> None:
    refuse_weights(spec, field=field)


def fuse(material: Material) -> Fused:
    return Fused(average(material, [1.0] * len(material.models)))
