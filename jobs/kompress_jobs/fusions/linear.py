"""Linear: the weighted mean of the weights; the weights are normalised.

J. Utans, Weight averaging for neural networks and local resampling schemes, 1996; M. Izmailov et al., 2018,
https://arxiv.org/abs/1803.05407.
"""

from kompress_api.errors import MethodRefused
from kompress_api.stages.fuse import Fuse
from kompress_jobs.fusions import Fused, Material, average


def refuse(spec: Fuse, *, field: str) -> None:
    if abs(sum(model.weight for model in spec.models)) < 1e-6:
        raise MethodRefused("the weights add up to 0", hint="give weights whose sum is not 0", field=f"{field}.models")


def fuse(material: Material) -> Fused:
    return Fused(average(material, material.weights))
