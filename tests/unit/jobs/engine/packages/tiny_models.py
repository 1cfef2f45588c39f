"""A user's own models, small enough for a test: 8 by 8 grey images, ten labels."""

import torch
from torch import nn


class Convolutional(nn.Module):
    """Two convolutions with batch norm; 10 k parameters at width 16."""

    def __init__(self, num_classes: int, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(2 * width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.first_norm(self.first(images)))
        found = torch.relu(self.second_norm(self.second(found)))
        return self.classifier(self.dropout(found.mean((2, 3))))


class Normless(nn.Module):
    """Without running statistics: what a batch gives does not depend on how it is shared among processes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


class Forgetful(Convolutional):
    """Keeps state where no bundle can see it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.scale = 1.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.scale += 1.0
        return super().forward(images) * self.scale


def convolutional(num_classes: int, width: int = 16, dropout: float = 0.0) -> nn.Module:
    return Convolutional(num_classes, width, dropout)


def normless(num_classes: int) -> nn.Module:
    return Normless(num_classes)


def forgetful(num_classes: int) -> nn.Module:
    return Forgetful(num_classes)


def seven_classes() -> nn.Module:
    return Convolutional(7)


def broken(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(5, num_classes))


class ByteBag(nn.Module):
    """The mean of its bytes' embeddings."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(259, 16)
        self.classifier = nn.Linear(16, num_classes)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weights = mask[..., None].float()
        return self.classifier((self.embedding(ids) * weights).sum(1) / weights.sum(1))


def byte_bag(num_classes: int) -> nn.Module:
    return ByteBag(num_classes)
