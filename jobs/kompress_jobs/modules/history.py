"""Structural changes of a model as data: what was done after its factory made it, so that it can be done again.

A change is a JSON object with the key `change`: `head`, `fold_batch_norm` (`batch_norm.py`), or `prune` with its `granularity`
(`granularities/<name>.py`), the latter two with a function `replay`. Changes are replayed in order, before the weights are loaded.
"""

from collections.abc import Sequence

from torch import nn

from kompress_jobs import registry
from kompress_jobs.modules.structure import Change, with_head
from kompress_jobs.samples import Inputs


def replay(model: nn.Module, history: Sequence[Change], sample: Inputs) -> nn.Module:
    """Do every change again, in place where possible; `sample` are inputs for tracing."""
    for index, change in enumerate(history):
        if change["change"] == "head":
            model = with_head(model, change["module"], change["outputs"])
        elif change["change"] == "fold_batch_norm":
            from kompress_jobs.modules import batch_norm

            model = batch_norm.replay(model, change, sample)
        else:
            granularity = registry.load("granularities", change["granularity"], field=f"bundle.json: history[{index}]")
            model = granularity.replay(model, change, sample)
    return model
