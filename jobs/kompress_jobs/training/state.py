"""Everything that a training remembers, in one dataclass that is saved and restored whole.

The order of the data, the augmentation and the dropout are functions of the seed and the step (`order`), so the step is
all that must be kept of them.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from kompress_api.training import Optimizer, Parallelism, Precision, Training
from kompress_jobs.modules import layout
from kompress_jobs.samples import Inputs
from kompress_jobs.training.sharding import gathered, local, sharded

Tensors = dict[str, torch.Tensor]
SCALE = "scale"
"""Key of an optimizer's group: factor of the learning rate."""
FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


@dataclass
class State:
    """What the loop remembers."""

    model: nn.Module
    """What learns: the model itself, never its DDP wrapper; with FSDP2 its sharded copy."""
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
    start: Tensors = field(default_factory=dict)
    """Weights that training began with, for regularizers; without those that started fresh."""
    loss: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    """Sum of this rank's losses since the last log, on the device (no host sync)."""
    logged: int = 0
    """Step of the last log."""
    bad: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))
    """First step whose loss was not finite, 0 for none, on the device. Not saved: such a state never is."""
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler(enabled=False))
    """Keeps the gradients of FP16 above its smallest number; does nothing elsewhere."""
    whole: nn.Module | None = None
    """With FSDP2 the model itself, which is evaluated and gets the result; its weights are old in between."""
    turned: list[nn.Module] = field(default_factory=list)
    """Convolutions that lie as they compute until training is finished."""

    def tensors(self) -> Tensors:
        """For torch.distributed.checkpoint: by parameter names, so any number of processes can load it.

        Of the optimizer only what it has learnt of each parameter: its settings come from the spec, as at the start.
        """
        model, optimizer = get_state_dict(self.model, self.optimizer, options=FLAT)
        learnt = {name: value for name, value in optimizer.items() if name.startswith("state.")}
        parts: dict[str, Any] = {"model": model, "optimizer": learnt, "average": self.average or {}, "best": self.best or {}}
        parts["start"] = self.start
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
            "scaler": self.scaler.state_dict(),
        }

    def prepare_for(self, numbers: dict[str, Any]) -> Tensors:
        """Take over the numbers, and return the tensors that are to be loaded into."""
        self.step, self.best_value, self.stale, self.logged = (numbers[name] for name in ("step", "best_value", "stale", "logged"))
        self.loss.fill_(numbers["loss"])
        if numbers["scaler"]:
            self.scaler.load_state_dict(numbers["scaler"])
        if numbers["best"]:
            self.best = copy_of(self.model)
        return self.tensors()

    def take(self, tensors: Tensors) -> None:
        """Take over the tensors that were loaded (in place: `average`, `best` and `start` are these tensors already)."""
        parts: dict[str, Tensors] = {"model": {}, "optimizer": {}, "average": {}, "best": {}, "start": {}}
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
        torch._foreach_lerp_([local(self.average[name]) for name in floating], [local(current[name]) for name in floating], 1 - decay)

    def keep_best(self) -> None:
        """The weights that are evaluated are the best so far."""
        self.best = copy_of(self.model) if self.average is None else {name: tensor.clone() for name, tensor in self.average.items()}

    @contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        """The model with the weights that are evaluated: the average where there is one. Collective with FSDP2."""
        if self.whole is not None:
            self.whole.load_state_dict(gathered(self.model.state_dict() if self.average is None else self.average))
            yield self.whole
            return
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
        """Leave in the model the weights that are the result: the best ones, else the average, else the last. Collective with FSDP2."""
        chosen = self.best if self.best is not None else self.average
        if self.whole is not None:
            self.whole.load_state_dict(gathered(self.model.state_dict() if chosen is None else chosen))
        elif chosen is not None:
            self.model.load_state_dict(chosen)
        layout.turn(self.turned, torch.contiguous_format)


def copy_of(model: nn.Module) -> Tensors:
    """A copy of the model's weights and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def build_state(
    model: nn.Module,
    settings: Training,
    *,
    scales: Mapping[str, float] | None = None,
    fresh: Collection[str] = (),
    start: Tensors | None = None,
    sample: Inputs | None = None,
) -> State:
    """A fresh state: biases and norms are not decayed, frozen parameters are left out.

    `scales` are factors of the learning rate by parameter, 1 where there is none; `fresh` are parameters that brought nothing along;
    `start` is where an earlier training of the same stage began; with a `sample` of what the model takes its convolutions are laid as they
    compute (`modules/layout.py`). Collective with FSDP2, which a single process does without.
    """
    itself = model
    if settings.parallelism is Parallelism.FSDP2 and dist.is_initialized():
        model = sharded(itself)
        sample = None
    turned = [] if sample is None else layout.channels_last(itself, sample)  # before the optimizer's state is made after the parameters
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        plain, scale = parameter.ndim <= 1, (scales or {}).get(name, 1.0)
        group: dict[str, Any] = {"params": [], "weight_decay": 0.0 if plain else settings.weight_decay, SCALE: scale}
        groups.setdefault((plain, scale), group)["params"].append(parameter)
    ordered = [group for _, group in sorted(groups.items(), key=lambda entry: entry[0])]
    optimizer: torch.optim.Optimizer
    if settings.optimizer is Optimizer.SGD:
        optimizer = torch.optim.SGD(
            ordered, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.momentum > 0, fused=True
        )
    else:
        kind = torch.optim.AdamW if settings.optimizer is Optimizer.ADAMW else torch.optim.Adam
        optimizer = kind(ordered, lr=settings.learning_rate, fused=True)
    device = next(model.parameters()).device
    state = State(
        model,
        optimizer,
        average=copy_of(model) if settings.ema else None,
        loss=torch.zeros((), device=device),
        bad=torch.zeros((), dtype=torch.int64, device=device),
        scaler=torch.amp.GradScaler(device.type, enabled=settings.precision is Precision.FP16),
        whole=None if model is itself else itself,
        turned=turned,
    )
    if settings.regularizers:
        own = {name: weight.detach().clone() for name, weight in model.named_parameters() if name not in fresh}
        state.start = own if start is None else start
    return state


def decayed(model: nn.Module) -> Tensors:
    """The parameters that weight decay and regularizers are about: those that learn, without biases and norms."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.ndim > 1}
