"""torchvision://resnet18: image models of torchvision, by the names of `torchvision.models.list_models()`."""

from collections.abc import Mapping
from typing import Any
from urllib.error import URLError

from torch import nn

from kompress_api.errors import InvalidManifest, StorageUnavailable
from kompress_jobs.models import Pretrained, unknown

WITH_OWN_SCALE = ("inception_v3", "googlenet")
"""Their weights were made for images in [-1, 1]. With weights torchvision builds them so that they come back to it from ImageNet's
normalisation (transform_input); built without, as every bundle is, they must get it."""


def construct(name: str, arguments: Mapping[str, Any], num_classes: int, task: str, *, field: str) -> nn.Module:
    """Build the model with fresh weights and `num_classes` outputs."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise unknown(f"torchvision://{name}", known, field=field)
    extra = {"init_weights": True} if name in WITH_OWN_SCALE else {}  # their default warns that it will change
    try:
        return models.get_model(name, weights=None, **({"num_classes": num_classes} | extra | dict(arguments)))  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise InvalidManifest(
            f"torchvision's {name} refuses its arguments: {error}", hint="change arguments", field=f"{field}.arguments"
        ) from error


def pretrained(name: str, arguments: Mapping[str, Any], task: str, *, field: str) -> Pretrained:
    """The library's default weights; the head's may not fit and are left out by who loads them."""
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except URLError as error:
        raise StorageUnavailable(
            f"the weights of torchvision://{name} can't be downloaded: {error.reason}",
            hint="let the pod reach the hub, or put the file into TORCH_HOME in the image",
            field=f"{field}.pretrained",
        ) from error
    if name in WITH_OWN_SCALE:
        return Pretrained(state, [0.5] * 3, [0.5] * 3)
    transforms = weights.transforms()
    return Pretrained(state, list(transforms.mean), list(transforms.std))
