"""ensemble://: several models as one, from their descriptions; only bundles name it (`kompress_jobs.modules.ensemble`)."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from kompress_jobs.description import Description
from kompress_jobs.models import rebuild
from kompress_jobs.modules.ensemble import Ensemble
from kompress_jobs.preprocessing.ensemble import Preprocessing


def construct(name: str, arguments: Mapping[str, Any], num_classes: int, task: str, *, field: str) -> nn.Module:
    """Build every member anew and put them side by side."""
    described = [Description.model_validate(entry) for entry in arguments["members"]]
    preprocessing = Preprocessing.of([entry.preprocessing for entry in described])
    return Ensemble(
        [rebuild(entry) for entry in described],
        preprocessing.takes,
        num_classes,
        learned=arguments["learned"],
        several=described[0].multi_label,
    )
