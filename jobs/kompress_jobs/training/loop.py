"""The one training loop, for every stage that trains.

It does not know what it optimises: `objective(model, batch)` gives a loss. It remembers a `State` and nothing else. Where
it waits for the device is marked `host sync`, where all ranks must join `collective`; both happen at logs, evaluations
and checkpoints, not at steps.
"""

import logging
import math
import time
from typing import cast

import torch
from torch import nn

from kompress_api.training import Precision, Training
from kompress_jobs.chance import mix
from kompress_jobs.context import StageContext
from kompress_jobs.gang import Gang
from kompress_jobs.regularizers import add_gradients
from kompress_jobs.training import memory
from kompress_jobs.training.batches import Batch, batches
from kompress_jobs.training.checkpoint import Checkpoints
from kompress_jobs.training.mixing import build_mixing
from kompress_jobs.training.order import learning_rate
from kompress_jobs.training.plan import Plan
from kompress_jobs.training.recompute import recomputed
from kompress_jobs.training.sharding import whole
from kompress_jobs.training.state import SCALE, State, decayed

log = logging.getLogger(__name__)

LOG_EVERY = 50
"""Most steps between two logs."""
PROGRESS_SECONDS = 1.0
DTYPES = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def train(plan: Plan, state: State, context: StageContext, gang: Gang, checkpoints: Checkpoints) -> None:
    """Collective: train until the plan is done or early stopping ends it; the result's weights are in `state.model`.

    Raises Interrupted after a checkpoint when someone asked to stop, LossNotFinite, MicroBatchTooLarge, OutOfMemory.
    """
    settings, order = plan.settings, plan.order
    model = gang.wrap(compiled(state.model, settings))
    reporter = Reporter(plan, context, gang)
    learn = Step(plan, state, model, gang)
    accumulation = memory.micro_batches(plan, context, gang)  # collective
    steps = batches(plan.data, order, gang, plan.task, settings.augmentation, accumulation, state.step)
    set_training(state.model)
    with recomputed(state.model, enabled=settings.activation_checkpointing):
        for micros in steps:
            factor = learning_rate(settings.schedule, state.step, order.steps, settings.warmup_fraction)
            for group in state.optimizer.param_groups:
                group["lr"] = settings.learning_rate * factor * group[SCALE]
            seed_generators(mix(plan.seed, 2, state.step, gang.rank), gang.device)
            try:
                learn(micros)
            except Exception as error:
                if memory.is_short(error):
                    memory.give_up(error, state.step + 1, accumulation, plan, context, gang)
                raise
            state.step += 1
            if settings.ema is not None:
                state.update_average(settings.ema.decay)
            reporter.progress(state)
            ends_epoch = state.step % order.steps_per_epoch == 0
            if ends_epoch or (state.step - state.logged) >= LOG_EVERY:
                reporter.log(state, factor * settings.learning_rate, checkpoints)  # host sync, collective
            if ends_epoch and validate(plan, state, gang, reporter):  # host sync, collective
                break
            checkpoints.boundary(state, plan, settings.checkpoint, stop=context.stop.requested)  # no sync, unless one is due
    checkpoints.finish()  # collective
    gang.average_buffers(state.model)  # collective
    state.finish()  # collective with FSDP2


def compiled(model: nn.Module, settings: Training) -> nn.Module:
    """The same weights behind a compiled forward pass, where that is asked for."""
    return cast(nn.Module, torch.compile(model)) if settings.compile else model


class Step:
    """One optimizer step. `model` is the one to call: compiled, wrapped."""

    def __init__(self, plan: Plan, state: State, model: nn.Module, gang: Gang) -> None:
        self.plan, self.state, self.model, self.gang = plan, state, model, gang
        self.settings = plan.settings
        self.mix = build_mixing(plan.settings)
        self.penalised = decayed(state.model) if plan.settings.regularizers else {}
        kind = DTYPES.get(plan.settings.precision)
        self.precision = torch.autocast(gang.device.type, kind, enabled=kind is not None)

    def __call__(self, micros: list[Batch]) -> None:
        state, settings, scaler = self.state, self.settings, self.state.scaler
        for batch in micros:
            mixed = self.mix(batch)
            with self.gang.accumulating(self.model, last=batch is micros[-1]):
                with self.precision:
                    loss = self.plan.objective(self.model, mixed) * batch.share
                scaler.scale(loss).backward()
            self.count(loss.detach())
        if self.penalised:
            penalty = add_gradients(settings.regularizers, self.penalised, state.start, scaler.get_scale())
            self.count(whole(penalty))
        if settings.gradient_clip_norm is not None:
            scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.model.parameters(), settings.gradient_clip_norm, foreach=True)
        scaler.step(state.optimizer)
        scaler.update()
        state.optimizer.zero_grad(set_to_none=True)

    def count(self, loss: torch.Tensor) -> None:
        """Add to the losses, and remember when the first was not finite; no host sync."""
        state = self.state
        state.loss += loss
        state.bad = torch.where((state.bad > 0) | torch.isfinite(loss), state.bad, state.step + 1)


def validate(plan: Plan, state: State, gang: Gang, reporter: "Reporter") -> bool:
    """Collective: evaluate on the validation split; with early stopping, keep the best weights and say whether it is time to stop."""
    gang.average_buffers(state.model)
    with state.evaluated() as model:
        figures = plan.validate(compiled(model, plan.settings))
    reporter.metrics({f"validation/{name}": value for name, value in figures.items()}, state)
    early = plan.settings.early_stopping
    if early is not None:
        value = watched(plan, figures, early.metric)
        if state.best_value is None or value > state.best_value + early.min_delta:
            state.best_value, state.stale = value, 0
            state.keep_best()
        else:
            state.stale += 1
    set_training(state.model)
    return early is not None and state.stale >= early.patience


def watched(plan: Plan, figures: dict[str, float], metric: str) -> float:
    """What early stopping looks at, more is better."""
    if metric == "accuracy":
        return plan.task.accuracy(figures)
    return -figures[metric] if metric == "loss" else figures[metric]


def set_training(model: nn.Module) -> None:
    """Training mode, except where everything is frozen: there, running statistics and dropout must rest too."""
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=True))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


def seed_generators(seed: int, device: torch.device) -> None:
    """Dropout and the like depend on seed, step and rank only."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


class Reporter:
    """Tells events what happens, seldom enough not to be felt."""

    def __init__(self, plan: Plan, context: StageContext, gang: Gang) -> None:
        self.plan, self.events, self.gang = plan, context.events, gang
        self.total = plan.all_steps or plan.first_step + plan.order.steps
        self.told = 0.0
        self.since, self.since_step = time.monotonic(), -1

    def progress(self, state: State) -> None:
        now = time.monotonic()
        if self.since_step < 0:
            self.since, self.since_step = now, state.step
        if now - self.told >= PROGRESS_SECONDS:
            self.told = now
            order = self.plan.order
            epoch = min(order.epoch(state.step) + 1, order.epochs)
            self.events.progress(self.plan.first_step + state.step, self.total, f"epoch {epoch}/{order.epochs}")

    def log(self, state: State, rate: float, checkpoints: Checkpoints) -> None:
        """Collective: loss since the last log (mean over steps and ranks), learning rate, speed; raises LossNotFinite."""
        steps = max(1, state.step - state.logged)
        loss = float(self.gang.mean(state.loss)) / steps
        if not math.isfinite(loss):
            raise checkpoints.not_finite(state, self.plan, f"the loss became {loss}")
        state.loss.zero_()
        state.logged = state.step
        figures = {"train/loss": loss, "train/learningRate": rate}
        now = time.monotonic()
        if state.step > self.since_step:
            figures["train/samplesPerSecond"] = (state.step - self.since_step) * self.plan.order.batch / max(now - self.since, 1e-9)
        self.since, self.since_step = now, state.step
        self.metrics(figures, state)

    def metrics(self, figures: dict[str, float], state: State) -> None:
        step = self.plan.first_step + state.step
        self.events.metrics(figures, step)
        if self.gang.rank == 0:
            log.info("step %d of %d: %s", step, self.total, ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
