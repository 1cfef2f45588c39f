"""The model of phrases.yaml, as your own would be: a log-mel spectrogram in, scores of every 20 ms out. 0.3 M parameters."""

import torch
from torch import nn


class Frames(nn.Module):
    """Convolutions over time, each block beside what it is given (J. Li et al., Jasper, 2019, https://arxiv.org/abs/1904.03288)."""

    def __init__(self, num_classes: int, width: int, depth: int, stride: int) -> None:
        super().__init__()
        self.stem = nn.Conv1d(64, width, 11, stride=stride, padding=5, bias=False)
        self.stem_norm = nn.BatchNorm1d(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 1, 64 bands, time) -> (batch, time / stride, characters)."""
        bands = images.squeeze(1)
        bands = bands - bands.mean(2, keepdim=True)  # what a voice or a microphone adds to all of a clip
        found = torch.relu(self.stem_norm(self.stem(bands)))
        for block in self.blocks:
            found = block(found)
        return self.classifier(found.transpose(1, 2))


class Block(nn.Module):
    """Hears 110 ms before and after."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Conv1d(width, 2 * width, 11, padding=5, bias=False)
        self.norm = nn.BatchNorm1d(2 * width)
        self.outer = nn.Conv1d(2 * width, width, 1)

    def forward(self, found: torch.Tensor) -> torch.Tensor:
        return found + self.outer(torch.relu(self.norm(self.inner(found))))


def net(num_classes: int, width: int = 64, depth: int = 3, stride: int = 2) -> nn.Module:
    """The factory that the manifest names; `num_classes` comes from the data."""
    return Frames(num_classes, width, depth, stride)
