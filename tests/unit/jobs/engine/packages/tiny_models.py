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


class Hungry(Normless):
    """Wants 8 MiB for each image that it learns from, and only looks at their address: enough to run out of memory without using any."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            torch.empty(len(images), 2**21, device=images.device)
        return super().forward(images)


class Forgetful(Convolutional):
    """Keeps state where no bundle can see it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.scale = 1.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.scale += 1.0
        return super().forward(images) * self.scale


class Residual(nn.Module):
    """Three blocks that hand on what they are given."""

    def __init__(self, num_classes: int, width: int = 8, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.blocks(self.stem(images)).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * width)
        self.outer = nn.Conv2d(2 * width, width, 1)

    def forward(self, found: torch.Tensor) -> torch.Tensor:
        return found + self.outer(torch.relu(self.norm(self.inner(found))))


class Grouped(nn.Module):
    """A grouped convolution and a group norm: a channel goes from each of four groups at once."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.second = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.classifier = nn.Linear(16 * 16, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.second(torch.relu(self.norm(self.first(images)))))
        return self.classifier(nn.functional.avg_pool2d(found, 2).flatten(1))


class Bert(nn.Module):
    """Text, as transformers has it: two layers of four heads."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        self.bert = BertForSequenceClassification(BertConfig(**sizes, max_position_embeddings=16, num_labels=num_classes))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.bert(input_ids=ids, attention_mask=mask).logits


class Wav2Vec2(nn.Module):
    """Sound, as transformers has it: two convolutions and two layers of four heads."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "classifier_proj_size": 16}
        ears = {"conv_dim": (16, 16), "conv_stride": (4, 4), "conv_kernel": (8, 8), "num_feat_extract_layers": 2}
        places = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
        self.wav2vec2 = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**sizes, **ears, **places, num_labels=num_classes))

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        return self.wav2vec2(waves).logits


class TransformersVit(nn.Module):
    """Images, as transformers has it: two layers of four heads."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        from transformers import ViTConfig, ViTForImageClassification

        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        self.vit = ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, num_labels=num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.vit(images).logits


def vit(num_classes: int) -> nn.Module:
    """timm's: two blocks of four heads."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=8, patch_size=4, in_chans=1, num_classes=num_classes, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2)


def torchvision_vit(num_classes: int) -> nn.Module:
    """torchvision's, with the attention of PyTorch itself."""
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=num_classes)


def residual(num_classes: int) -> nn.Module:
    return Residual(num_classes)


def convolutional(num_classes: int, width: int = 16, dropout: float = 0.0) -> nn.Module:
    return Convolutional(num_classes, width, dropout)


def normless(num_classes: int) -> nn.Module:
    return Normless(num_classes)


def hungry(num_classes: int) -> nn.Module:
    return Hungry(num_classes)


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
