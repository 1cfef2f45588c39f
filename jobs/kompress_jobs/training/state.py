"""Everything that a training remembers, in one dataclass that is saved and restored whole.

The order of the data, the augmentation and the dropout are functions of the seed and the step (`order`), so the step is
all that must be kept of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from kompress_api.training import Optimizer, Training

Tensors = dict[str, torch.Tensor]
FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


@dataclass
class State:
    """What the loop remembers."""

    model: nn.Module
    """The model itself, never its DDP wrapper."""
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Optimizer steps that are done."""
    average: Tensors | None = None
    """EMA of weights and running statistics; None when off."""
    best: Tensors | None = None
    """Weights of the best evaluation, for early stopping."""
    best_value: float | None = None
    stale: int = 0
    """Evaluations since the best one."""
    loss: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    """Sum of this rank's losses since the last log, on the device (no host sync)."""
    logged: int = 0
    """Step of the last log."""

    def tensors(self) -> Tensors:
        """For torch.distributed.checkpoint: by parameter names, so any number of processes can load it.

        Of the optimizer only what it has learnt of each parameter: its settings come from the spec, as at the start.
        """
        model, optimizer = get_state_dict(self.model, self.optimizer, options=FLAT)
        learnt = {name: value for name, value in optimizer.items() if name.startswith("state.")}
        parts: dict[str, Any] = {"model": model, "optimizer": learnt, "average": self.average or {}, "best": self.best or {}}
        return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}

    def numbers(self) -> dict[str, Any]:
        """The rest, as JSON."""
        return {
            "step": self.step,
            "best": self.best is not None,
            "best_value": self.best_value,
            "stale": self.stale,
            "loss": float(self.loss),
            "logged": self.logged,
        }

    def prepare_for(self, numbers: dict[str, Any]) -> Tensors:
        """Take over the numbers, and return the tensors that are to be loaded into."""
        self.step, self.best_value, self.stale, self.logged = (numbers[name] for name in ("step", "best_value", "stale", "logged"))
        self.loss.fill_(numbers["loss"])
        if numbers["best"]:
            self.best = copy_of(self.model)
        return self.tensors()

    def take(self, tensors: Tensors) -> None:
        """Take over the tensors that were loaded (in place: `average` and `best` are these tensors already)."""
        parts: dict[str, Tensors] = {"model": {}, "optimizer": {}, "average": {}, "best": {}}
        for name, value in tensors.items():
            part, _, own = name.partition(".")
            parts[part][own] = value
        _, settings = get_state_dict(self.model, self.optimizer, options=FLAT)
        optimizer: dict[str, Any] = {**settings, **parts["optimizer"]}
        set_state_dict(self.model, self.optimizer, model_state_dict=parts["model"], optim_state_dict=optimizer, options=FLAT)

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """One step of the EMA; at first the decay is smaller, (1 + step) / (10 + step), so that the start is soon forgotten."""
        if self.average is None:
            return
        decay = min(decay, (1 + self.step) / (10 + self.step))
        current = self.model.state_dict()
        floating = [name for name, tensor in current.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in floating], [current[name] for name in floating], 1 - decay)

    @contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        """The model with the weights that are evaluated: the average where there is one."""
        if self.average is None:
            yield self.model
            return
        own = copy_of(self.model)
        self.model.load_state_dict(self.average)
        try:
            yield self.model
        finally:
            self.model.load_state_dict(own)

    def finish(self) -> None:
        """Leave in the model the weights that are the result: the best ones, else the average, else the last."""
        chosen = self.best if self.best is not None else self.average
        if chosen is not None:
            self.model.load_state_dict(chosen)


def copy_of(model: nn.Module) -> Tensors:
    """A copy of the model's weights and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def build_state(model: nn.Module, settings: Training) -> State:
    """A fresh state: biases and norms are not decayed, frozen parameters are left out."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in learning if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in learning if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer: torch.optim.Optimizer
    if settings.optimizer is Optimizer.SGD:
        optimizer = torch.optim.SGD(
            groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.momentum > 0, fused=True
        )
    else:
        kind = torch.optim.AdamW if settings.optimizer is Optimizer.ADAMW else torch.optim.Adam
        optimizer = kind(groups, lr=settings.learning_rate, fused=True)
    device = next(model.parameters()).device
    return State(model, optimizer, average=copy_of(model) if settings.ema else None, loss=torch.zeros((), device=device))
