"""Torch-Pruning as its own examples use it (cifar, transformers): Taylor importance, small steps until half of the MACs are gone, then
training.  python prune_torch_pruning.py JSON: what a peer's script is given, and most `macs`"""

from typing import Any

import torch_pruning
from original import Original, answer, given
from timm.layers.attention import Attention
from torch import nn
from torch.nn.functional import cross_entropy
from transformers.models.bert.modeling_bert import BertSelfAttention

STEPS = 100
CALIBRATION_BATCHES = 10


def prune(original: Original) -> dict[str, Any]:
    model = original.model
    heads = heads_of(model)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        original.example(2),
        importance=torch_pruning.importance.TaylorImportance(),
        global_pruning=not heads,  # of transformers its examples prune every layer alike
        pruning_ratio=0.9,
        max_pruning_ratio=0.9,
        iterative_steps=STEPS,
        ignored_layers=[linear[-1]],
        num_heads=heads,
        round_to=None if heads else 8,
        output_transform=lambda scores: scores.sum(),
    )
    for step, batch in enumerate(original.batches(CALIBRATION_BATCHES)):
        if step == CALIBRATION_BATCHES:
            break
        cross_entropy(original.scores(model, original.inputs(batch)), batch.targets).backward()
    while not original.halved(model):
        before = original.macs(model)
        for _ in range(STEPS):
            pruner.step()
            tell_heads(model, pruner.num_heads)
            if original.macs(model) < before:
                break
        else:
            raise RuntimeError("nothing more goes")
    model.zero_grad()
    original.tune(model, original.asked["epochs"])
    return {"accuracy": original.accuracy(model), "macs": original.macs(model)}


def heads_of(model: nn.Module) -> dict[nn.Module, int]:
    """The layers that make heads, as the examples name them."""
    found: dict[nn.Module, int] = {}
    for module in model.modules():
        if isinstance(module, Attention):
            found[module.qkv] = module.num_heads
        elif isinstance(module, BertSelfAttention):
            found |= dict.fromkeys((module.query, module.key, module.value), module.num_attention_heads)
    return found


def tell_heads(model: nn.Module, heads: dict[nn.Module, int]) -> None:
    """What the modules remember of their own shape."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.num_heads = heads[module.qkv]
            module.attn_dim = module.qkv.out_features // 3
            module.head_dim = module.attn_dim // module.num_heads
            module.scale = module.head_dim**-0.5
        elif isinstance(module, BertSelfAttention):
            module.num_attention_heads = heads[module.query]
            module.all_head_size = module.query.out_features
            module.attention_head_size = module.all_head_size // module.num_attention_heads
            module.scaling = module.attention_head_size**-0.5


answer(lambda: prune(given()))
