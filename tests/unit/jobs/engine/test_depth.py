"""What lies deep in a model learns slowly and late: a wrong order would spoil what pretraining has taught the layers below."""

from collections.abc import Callable

import pytest
import torch
from stage_contexts import CPU, TINY, build_context
from tiny_models import Bert, convolutional, residual, torchvision_vit
from torch import nn

from kompress_jobs.bench import Bench
from kompress_jobs.context import StageOutput
from kompress_jobs.loading import bundle
from kompress_jobs.training.depth import blocks, depths, scales

GREY = torch.zeros(2, 1, 8, 8)
TOKENS = (torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.int64))


def resnet18() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(num_classes=10)


def mobilenet() -> nn.Module:
    from torchvision.models import mobilenet_v3_small

    return mobilenet_v3_small(num_classes=10)


@pytest.mark.parametrize(
    ("model", "sample", "levels"),
    [
        (
            resnet18(),
            (torch.zeros(2, 3, 32, 32),),
            {"conv1.weight": 0, "bn1.bias": 0, "layer1.0.conv1.weight": 1, "layer2.0.downsample.0.weight": 3, "layer4.1.bn2.weight": 8}
            | {"fc.weight": 9, "fc.bias": 9},
        ),
        (
            torchvision_vit(10),
            (torch.zeros(2, 3, 8, 8),),
            {"class_token": 0, "encoder.pos_embedding": 0, "conv_proj.weight": 0}
            | {"encoder.layers.encoder_layer_0.self_attention.in_proj_weight": 1, "encoder.layers.encoder_layer_1.mlp.0.weight": 2}
            | {"encoder.layers.encoder_layer_1.self_attention.out_proj.weight": 2, "encoder.ln.weight": 3, "heads.head.weight": 3},
        ),
        (
            Bert(10),
            TOKENS,
            {"bert.bert.embeddings.word_embeddings.weight": 0, "bert.bert.encoder.layer.0.output.LayerNorm.bias": 1}
            | {"bert.bert.encoder.layer.1.attention.self.query.weight": 2, "bert.bert.pooler.dense.weight": 3, "bert.classifier.bias": 3},
        ),
        (residual(10), (GREY,), {"stem.weight": 0, "blocks.0.inner.weight": 1, "blocks.2.norm.bias": 3, "classifier.weight": 4}),
        (
            convolutional(10),
            (GREY,),
            {"first.weight": 0, "first_norm.weight": 0, "second.weight": 1, "second_norm.bias": 1, "classifier.weight": 2},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_levels_rise_from_the_input_to_the_head(model: nn.Module, sample: tuple[torch.Tensor, ...], levels: dict[str, int]) -> None:
    found = depths(model, sample)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert {name: found[name] for name in levels} == levels


def test_blocks_of_a_model_whose_blocks_hold_stacks_themselves() -> None:
    assert blocks(mobilenet()) == [f"features.{index}" for index in range(13)]


def test_the_rate_falls_with_every_level() -> None:
    assert scales({"head": 2, "middle": 1, "stem": 0}, 0.5) == {"head": 1, "middle": 0.5, "stem": 0.25}


def test_lower_layers_move_less(run_stage: Callable[..., StageOutput], tmp_path: object) -> None:
    own = {"epochs": 1, "layerDecay": 0.1, "learningRate": 1e-3, "weightDecay": 0}
    output = run_stage({"fineTune": own}, model=TINY)
    assert output.folder is not None
    trained = bundle.read(output.folder).model
    start = Bench(build_context(output.folder.parent, {"fineTune": own}, model=TINY, device=CPU)).take("model").model
    moved = {
        name: float((parameter - trained.get_parameter(name)).abs().mean())
        for name, parameter in start.named_parameters()
        if parameter.ndim > 1
    }
    assert 0 < moved["first.weight"] < 0.2 * moved["second.weight"] < 0.04 * moved["classifier.weight"]
