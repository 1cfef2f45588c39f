"""GreedySoup: models join the mean in the order of their validation accuracy, each only if the soup does not get worse.

M. Wortsman et al., Model soups, 2022, https://arxiv.org/abs/2203.05482, recipe 1. Reference: CLIP ViT-B/32 on ImageNet, 72 models:
best single 80.39, greedy 81.03. The result is never worse on validation than the best model alone.
"""

from kompress_api.stages.fuse import Fuse
from kompress_jobs.fusions import Fused, Material, Tensors, average, refuse_weights


def refuse(spec: Fuse, *, field: str) -> None:
    refuse_weights(spec, field=field)


def fuse(material: Material) -> Fused:
    alone = [material.score(model) for model in material.models]
    order = sorted(range(len(alone)), key=lambda index: -alone[index])
    soup, chosen, best = material.models[order[0]], order[:1], alone[order[0]]
    for index in order[1:]:
        tried = mean_of(material, [*chosen, index])
        scored = material.score(tried)
        if scored >= best:
            soup, chosen, best = tried, [*chosen, index], scored
    names = [model.from_ for model in material.spec.models]
    return Fused(
        soup,
        {"alone": dict(zip(names, alone, strict=True)), "ingredients": [names[index] for index in chosen], "validation": best},
    )


def mean_of(material: Material, chosen: list[int]) -> Tensors:
    """The plain mean of some of the models."""
    return average(material, [float(index in chosen) for index in range(len(material.models))])
