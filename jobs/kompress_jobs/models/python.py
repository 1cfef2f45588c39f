"""python://package.module:factory: the user's own nn.Module, from code in their image.

The factory gets the manifest's `arguments`, and `num_classes` when its signature asks for it. It comes with whatever
weights it likes; a bundle keeps them.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from kompress_api.errors import UnknownModel
from kompress_jobs import factories
from kompress_jobs.models import Pretrained


def construct(name: str, arguments: Mapping[str, Any], num_classes: int, task: str, *, field: str) -> nn.Module:
    """Call the factory."""
    factory = factories.resolve(name, field=f"{field}.source")
    model = factories.call(factory, arguments, {"num_classes": num_classes}, field=f"{field}.arguments")
    if not isinstance(model, nn.Module):
        raise UnknownModel(f"python://{name} returned a {type(model).__name__}", hint="return an nn.Module", field=f"{field}.source")
    return model


def pretrained(name: str, arguments: Mapping[str, Any], task: str, *, field: str) -> Pretrained:
    """The factory's own weights are what there is."""
    return Pretrained()
