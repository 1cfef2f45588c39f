"""Channel: whole channels go, with everything in other layers that is coupled to them, so the model is really smaller.

G. Fang et al., DepGraph: Towards Any Structural Pruning, 2023, https://arxiv.org/abs/2301.12900, as Torch-Pruning has it.
What was removed is kept as Torch-Pruning's history (root layer, direction, indices) and replayed when a bundle is read.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.stages.prune import Prune, Scope
from kompress_jobs.samples import Inputs
from kompress_jobs.structure import Change

CHANGE = "channel"


class Pruner:
    """Removes channels of a model in place, a step at a time.

    `sample` are inputs for tracing, `head` the layer of the outputs, which is left alone.
    Raises MethodRefused for a model whose layers' couplings can't be traced.
    """

    def __init__(
        self, model: nn.Module, sample: Inputs, importance: Callable[..., torch.Tensor], spec: Prune, head: str, *, field: str
    ) -> None:
        import torch_pruning

        refuse_attention(model, field=field)
        names = dict(model.named_modules())
        ignored = [module for name, module in names.items() if name == head or any(fnmatchcase(name, glob) for glob in spec.ignore)]
        self.field, self.model = field, model
        self.widths = widths(model)
        assert spec.pruning_ratio is not None
        kept = KeptImportance(importance, 1 - spec.max_pruning_ratio, spec.round_to)
        try:
            self.pruner = torch_pruning.pruner.BasePruner(
                model.eval(),
                sample,
                kept,
                global_pruning=spec.scope is not Scope.LOCAL,
                isomorphic=spec.scope is Scope.ISOMORPHIC,
                pruning_ratio=spec.pruning_ratio,
                max_pruning_ratio=spec.max_pruning_ratio,
                iterative_steps=spec.iterative_steps,
                iterative_pruning_ratio_scheduler=SCHEDULES[spec.schedule],
                ignored_layers=ignored,
                round_to=spec.round_to,
            )
        except Exception as error:
            raise MethodRefused(
                f"the couplings between the model's channels can't be traced: {error}",
                hint="use another model, or write its forward pass with tensor operations that autograd sees",
                field=field,
            ) from error
        kept.widths = self.pruner.layer_init_out_ch

    def step(self) -> None:
        """Remove the least important channels, up to the next step's ratio."""
        self.pruner.step()
        self.model.zero_grad(set_to_none=True)

    def change(self) -> Change:
        """All that was removed so far, for the bundle's history."""
        steps = [[name, bool(outward), [int(index) for index in indices]] for name, outward, indices in self.pruner.pruning_history()]
        return {"change": CHANGE, "steps": steps}

    def restore(self, change: Change, steps: int) -> None:
        """Do again what `change` says, as if `steps` steps had been made."""
        self.pruner.load_pruning_history([tuple(step) for step in change["steps"]])
        self.pruner.current_step = steps

    def removed(self) -> dict[str, list[int]]:
        """Layer -> [channels before, channels now], where they differ; raises MethodRefused when nothing was removed."""
        now = widths(self.model)
        found = {name: [before, now[name]] for name, before in self.widths.items() if now[name] != before}
        if not found:
            raise MethodRefused(
                "no channel was removed: rounding and limits leave every layer as it is",
                hint="raise pruningRatio, lower roundTo, or ignore fewer modules",
                field=f"{self.field}.pruningRatio",
            )
        return found


def linear(ratio: float, steps: int) -> list[float]:
    """Ratio after 0, 1, ..., `steps` steps, growing evenly."""
    return [ratio * step / steps for step in range(steps + 1)]


def cubic(ratio: float, steps: int) -> list[float]:
    """Fast at first, slow at last (M. Zhu, S. Gupta, 2017, https://arxiv.org/abs/1710.01878)."""
    return [ratio * (1 - (1 - step / steps) ** 3) for step in range(steps + 1)]


SCHEDULES = {"Linear": linear, "Cubic": cubic}


class KeptImportance:
    """An importance under which no layer loses more than it may: its best channels are worth infinitely much.

    Torch-Pruning's own limit holds from one step to the next only, and its rounding can leave a layer without channels.
    """

    def __init__(self, importance: Callable[..., torch.Tensor], share: float, least: int) -> None:
        self.importance, self.share, self.least = importance, share, least
        self.widths: dict[nn.Module, int] = {}

    def __call__(self, group: Any) -> torch.Tensor:
        worth = self.importance(group)
        initial = self.widths.get(group[0].dep.target.module, len(worth))
        kept = min(len(worth), max(self.least, round(initial * self.share), 1))
        worth = worth.clone()
        worth[worth.topk(kept).indices] = torch.inf
        return worth


def replay(model: nn.Module, change: Change, sample: Inputs) -> nn.Module:
    """Remove the same channels from a freshly built model, in place."""
    import torch_pruning

    graph = torch_pruning.DependencyGraph().build_dependency(model.eval(), sample)
    graph.load_pruning_history([tuple(step) for step in change["steps"]])
    return model


def widths(model: nn.Module) -> dict[str, int]:
    """Output channels of every convolution and linear layer."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            found[name] = module.out_channels
        elif isinstance(module, nn.Linear):
            found[name] = module.out_features
    return found


def refuse_attention(model: nn.Module, *, field: str) -> None:
    """Attention shares its width among heads; cutting channels of it needs the heads' bookkeeping, which is granularity Head's."""
    for name, module in model.named_modules():
        if any(hasattr(module, name) for name in ("num_heads", "num_attention_heads", "n_heads")):
            raise MethodRefused(
                f"{name} is an attention layer ({type(module).__name__}): channels of attention are not pruned in this version",
                hint="prune a convolutional model, or leave this stage out",
                field=f"{field}.granularity",
            )
