"""TaskArithmetic: base + scaling * sum of weight * (model - base). A negative weight unlearns.

G. Ilharco et al., Editing Models with Task Arithmetic, 2023, https://arxiv.org/abs/2212.04089.
"""

from kompress_api.stages.fuse import Fuse
from kompress_jobs.fusions import Fused, Material, add_up, refuse_no_base


def refuse(spec: Fuse, *, field: str) -> None:
    refuse_no_base(spec, field=field)


def fuse(material: Material) -> Fused:
    return Fused(add_up(material, lambda _, __, vector: vector))
