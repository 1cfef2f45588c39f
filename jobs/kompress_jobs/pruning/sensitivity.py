"""What a cut of each layer alone would cost, before anything is cut: loss and accuracy on validation, without recovery.

H. Li et al., Pruning Filters for Efficient ConvNets, 2017, https://arxiv.org/abs/1608.08710, section 3.2. Each row is a copy of the
model in which one layer has lost its least worth.
"""

from typing import Any

import torch

from kompress_api.stages.prune import Prune
from kompress_jobs.bench import Bench
from kompress_jobs.description import Loaded
from kompress_jobs.pruning.recovery import Methods, bench_calibration, worths_of
from kompress_jobs.pruning.structural import Structural

NOTE = "sensitivity"


def measure(bench: Bench, found: Loaded, spec: Prune, methods: Methods) -> dict[str, Any]:
    """Collective: {"loss", "accuracy", "layers": {layer: [{"ratio", "loss", "accuracy"}]}}; noted, so that a resumed stage has it."""
    noted = bench.gang.from_rank_0(lambda: bench.context.checkpoints.noted(NOTE))
    if noted:
        return dict(noted)
    pruner = methods.pruner(found, spec, field=bench.field())
    worths = worths_of(pruner, bench_calibration(bench, found, spec), methods.importance, bench.input.seed)
    found.model.zero_grad(set_to_none=True)
    told: dict[str, Any] = {**scores(bench, found), "layers": {}}
    for name, shares in shares_of(pruner).items():
        bench.stop_point()
        rows = []
        for share in shares:
            cut = pruner.alone(worths, name, share)
            if cut:
                rows.append({"ratio": share, **scores(bench, Loaded(pruner.trial(cut), found.description))})
        told["layers"][name] = rows
    if bench.gang.rank == 0:
        bench.context.checkpoints.note(NOTE, told)
    return told


def shares_of(pruner: Any) -> dict[str, list[float]]:
    """Layer -> shares of it that are cut: those of the granularity, or a unit more each time where units are few."""
    if not isinstance(pruner, Structural):
        return {name: list(pruner.trial_ratios) for name in pruner.weights}
    return {
        layer.name: list(pruner.trial_ratios) or [(unit + 1) / layer.size for unit in range(layer.removable)] for layer in pruner.layers
    }


def scores(bench: Bench, found: Loaded) -> dict[str, float]:
    """Collective: those of validation that say what a cut costs."""
    with torch.no_grad():
        figures = bench.score(found, bench.data.validation, intervals=False).values
    return {"loss": figures["loss"], "accuracy": float(bench.task.accuracy(figures))}
