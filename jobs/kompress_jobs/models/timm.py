"""timm://resnet10t: image models of timm, by the names of `timm.list_models()`."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from kompress_api.errors import InvalidManifest, StorageUnavailable
from kompress_jobs.models import Pretrained, unknown


def construct(name: str, arguments: Mapping[str, Any], num_classes: int, task: str, *, field: str) -> nn.Module:
    """Build the model with fresh weights and `num_classes` outputs."""
    import timm

    if not timm.is_model(name):
        raise unknown(f"timm://{name}", timm.list_models(), field=field)
    try:
        return timm.create_model(name, pretrained=False, **({"num_classes": num_classes} | dict(arguments)))  # type: ignore[no-any-return]
    except (TypeError, ValueError, AssertionError) as error:
        raise InvalidManifest(
            f"timm's {name} refuses its arguments: {error}", hint="change arguments", field=f"{field}.arguments"
        ) from error


def pretrained(name: str, arguments: Mapping[str, Any], task: str, *, field: str) -> Pretrained:
    """The library's default weights; the head's may not fit and are left out by who loads them."""
    import timm

    try:
        model = timm.create_model(name, pretrained=True, **dict(arguments))
    except (OSError, RuntimeError) as error:
        raise StorageUnavailable(
            f"the weights of timm://{name} can't be downloaded: {error}",
            hint="let the pod reach the hub, or put the files into HF_HOME in the image",
            field=f"{field}.pretrained",
        ) from error
    return Pretrained(model.state_dict(), list(model.pretrained_cfg["mean"]), list(model.pretrained_cfg["std"]))
