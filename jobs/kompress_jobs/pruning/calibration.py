"""What importances must know of the loss, collected over a few batches of train, the same on every rank."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from kompress_jobs.gang import Gang
from kompress_jobs.importances import Evidence
from kompress_jobs.samples import pick
from kompress_jobs.training.batches import Batch
from kompress_jobs.training.plan import Objective


@dataclass(frozen=True)
class Calibration:
    """Batches, without augmentation, and the task's loss."""

    batches: Callable[[], Iterable[Batch]]
    """This rank's share of each."""
    learn: Objective
    gang: Gang

    def collect(self, model: nn.Module, evidence: Evidence) -> None:
        """Collective: leave in the parameters' `grad` what the importance asks for. The model is in evaluation mode afterwards."""
        model.eval()
        model.zero_grad(set_to_none=True)
        with torch.enable_grad():
            if evidence is Evidence.GRADIENT:
                for batch in self.batches():
                    self.learn(model, batch).backward()  # type: ignore[no-untyped-call]
                self._sum(model)
            if evidence is Evidence.SQUARES:
                self._squares(model)

    def _squares(self, model: nn.Module) -> None:
        """A backward pass for every sample: the square of a batch's gradient is not the mean of the samples' squares."""
        squares: dict[nn.Parameter, torch.Tensor] = {}
        seen = 0
        for batch in self.batches():
            for index in range(len(batch.targets)):
                one = torch.tensor([index])
                model.zero_grad(set_to_none=True)
                single = Batch(pick(batch.samples, one), batch.targets[index : index + 1], batch.indices[one], 1.0)
                self.learn(model, single).backward()  # type: ignore[no-untyped-call]
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        squares[parameter] = squares.get(parameter, 0) + parameter.grad.square()  # type: ignore[assignment]
                seen += 1
        for parameter in model.parameters():
            parameter.grad = squares.get(parameter)
        self._sum(model)
        everywhere = float(self.gang.mean(torch.tensor(float(seen)))) * self.gang.world_size
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= max(everywhere, 1.0)

    def _sum(self, model: nn.Module) -> None:
        """Collective: over the ranks, of which one may have had no sample at all."""
        for parameter in model.parameters():
            if parameter.grad is None and parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        self.gang.sum_gradients(model)

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float:
        """Collective: mean loss over all samples of the batches."""
        model.eval()
        summed = torch.zeros(2, dtype=torch.float64)
        for batch in self.batches():
            count = len(batch.targets)
            summed += torch.tensor([float(self.learn(model, batch)) * count, count], dtype=torch.float64)
        summed = self.gang.mean(summed)
        return float(summed[0] / summed[1].clamp(min=1e-9))
