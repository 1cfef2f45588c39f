"""What peers' scripts are given: the same original, samples, order, augmentation and recipe as kompress's stage, and the loop that a
person writes around them.

A script takes one JSON: {bundle, task, dataset, seed, settings} and what is its own; it answers with JSON in its last line.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from device import DEVICE
from torch import nn

from kompress_api.places import Dataset
from kompress_api.stages.fine_tune import FineTune
from kompress_jobs import data, registry
from kompress_jobs.description import Description
from kompress_jobs.gang import Gang
from kompress_jobs.loading import bundle
from kompress_jobs.measure import size
from kompress_jobs.samples import Inputs, move, place
from kompress_jobs.samples.splits import Data, Split
from kompress_jobs.training.batches import Batch, batches
from kompress_jobs.training.order import Order, learning_rate


@dataclass
class Original:
    """The fine-tuned model with what it was trained on."""

    asked: dict[str, Any]
    model: nn.Module
    description: Description
    data: Data
    task: ModuleType
    settings: FineTune

    def inputs(self, batch: Batch) -> Inputs:
        """As the model takes them."""
        found: Inputs = self.description.preprocessing(batch.samples)
        return found

    def example(self, count: int) -> Inputs:
        """Inputs for tracing."""
        return place(self.description.preprocessing.sample(count), DEVICE)

    def scores(self, model: nn.Module, inputs: Inputs) -> torch.Tensor:
        """(batch, classes)."""
        found: torch.Tensor = self.task.logits(model(*inputs))
        return found

    def batches(self, epochs: int) -> Iterator[Batch]:
        """The training batches of as many epochs, in the order in which kompress has them."""
        for (batch,) in batches(self.data.train, self.order(epochs), Gang(0, 1, DEVICE), self.task, self.settings.augmentation, 1, 0):
            yield batch

    def order(self, epochs: int) -> Order:
        return Order(len(self.data.train), self.settings.batch_size, epochs, self.asked["seed"])

    def tune(self, model: nn.Module, epochs: int) -> None:
        """Train: AdamW without decay of biases and norms, a linear warm-up, then a cosine."""
        settings, steps = self.settings, self.order(epochs).steps
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
        model.train()
        torch.manual_seed(self.asked["seed"])
        for step, batch in enumerate(self.batches(epochs)):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * learning_rate(settings.schedule, step, steps, settings.warmup_fraction)
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=settings.precision == "BF16"):
                loss = self.task.loss(model(*self.inputs(batch)), batch.targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()  # and not inference mode, whose tensors a later training could not use
    def accuracy(self, model: nn.Module, split: Split | None = None) -> float:
        """On the test split, where no other is given."""
        split, right = split or self.data.test, 0
        model.eval()
        for rows in torch.arange(len(split)).split(256):
            samples, found = split.read(rows)
            scores = self.scores(model, self.description.preprocessing(move(samples, DEVICE)))
            right += int((scores.argmax(1).cpu() == split.labels[rows[found]]).sum())
        return right / len(split)

    def macs(self, model: nn.Module) -> int:
        """Multiply-accumulates of one sample."""
        return size.macs(model, self.example(1))

    def halved(self, model: nn.Module) -> bool:
        """Whether half of the original's multiply-accumulates are gone."""
        return self.macs(model) <= self.asked["macs"]


def given() -> Original:
    """What the command line says."""
    asked = json.loads(sys.argv[1])
    torch.manual_seed(asked["seed"])
    found = bundle.read(Path(asked["bundle"]))
    known = data.load(Dataset.model_validate(asked["dataset"]), Path(tempfile.mkdtemp()))
    task = registry.load("tasks", asked["task"], field="")
    return Original(asked, found.model.to(DEVICE), found.description, known, task, FineTune.model_validate(asked["settings"]))


def answer(work: Callable[[], dict[str, Any]], refusal: type[Exception] | None = None) -> None:
    """Print what the script has found. `refusal` is how the peer says that it can't do this: that is an answer, too; any other error is one
    of the script."""
    try:
        found = work()
    except Exception as error:
        if refusal is None or not isinstance(error, refusal):
            raise
        found = {"unable": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"[:120]}
    print(json.dumps(found))
