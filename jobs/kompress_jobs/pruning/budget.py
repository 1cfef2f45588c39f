"""The smallest ratio that meets a budget of parameters, MACs or measured latency: by bisection, on copies.

What a ratio removes grows with it, so sizes shrink with it and the bisection finds the ratio exactly (to RESOLUTION, less than
which no layer loses a unit, or a last unit is lost in vain). Latency is measured, so there it is as exact as the machine is quiet.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.stages.prune import Constraints
from kompress_jobs.measure import latency, size
from kompress_jobs.samples import Inputs

RESOLUTION = 1 / 1024
FIGURES = {"params": "parameters", "macs": "macs", "latency_ms": "latencyP50Ms"}
"""Budget -> figure that it bounds."""
Figures = Mapping[str, float]


def budgets(constraints: Constraints) -> dict[str, float]:
    """Figure -> most that it may be."""
    return {figure: float(value) for name, figure in FIGURES.items() if (value := getattr(constraints, name)) is not None}


def figures(model: nn.Module, sample: Inputs, wanted: Mapping[str, float]) -> dict[str, float]:
    """Those that have a budget; `sample` is one sample. Latency: eager PyTorch on this machine's CPU, batch 1, one thread."""
    found = {name: value for name, value in size.sizes(model, sample).items() if name in wanted}
    if "latencyP50Ms" in wanted:
        on_cpu = model.cpu().eval()
        found["latencyP50Ms"] = latency.eager(on_cpu, tuple(part.cpu() for part in sample))["latencyP50Ms"]
    return found


def smallest_ratio(pruner: Any, worths: Any, wanted: Mapping[str, float], sample: Inputs, most: float, *, field: str) -> float:
    """The least ratio, up to `most`, whose model keeps all budgets. Raises MethodRefused when none does."""
    known: dict[str, Figures] = {}

    def measured(ratio: float) -> Figures:
        cut = pruner.choose(worths, ratio).cut
        same = str({name: units.tolist() for name, units in cut.items()})
        if same not in known:
            known[same] = figures(pruner.trial(cut), sample, wanted)
        return known[same]

    def holds(ratio: float) -> bool:
        found = measured(ratio)
        return all(found[name] <= value for name, value in wanted.items())

    if not holds(most):
        raise MethodRefused(unreachable(measured(most), wanted), hint="raise the budget or maxPruningRatio, or lower roundTo", field=field)
    return bisect(holds, most)


def bisect(holds: Callable[[float], bool], most: float) -> float:
    """The least ratio in [0, most] for which `holds`, to RESOLUTION; it does for `most`."""
    if holds(0.0):
        return 0.0
    low, high = 0.0, most
    while high - low > RESOLUTION:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def unreachable(found: Figures, wanted: Mapping[str, float]) -> str:
    """What is too much even when all goes that may."""
    over = [f"{name} {found[name]:.6g} (allowed {value:.6g})" for name, value in wanted.items() if found[name] > value]
    return f"even when every layer loses all that it may, the model has {', '.join(over)}"
