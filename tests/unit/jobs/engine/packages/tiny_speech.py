"""A recogniser with linear layers, for methods that change those."""

import torch
from phrases_model import Frames
from torch import nn


class Mixed(Frames):
    """Each frame looked at once more, by itself."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, width=48, depth=2, stride=2)
        mixer = nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 48))
        nn.init.zeros_(mixer[2].weight)
        self.classifier = nn.Sequential(Beside(mixer), self.classifier)


class Beside(nn.Module):
    """What is inside, beside what it is given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, found: torch.Tensor) -> torch.Tensor:
        return found + self.inner(found)


def mixed(num_classes: int) -> nn.Module:
    return Mixed(num_classes)
