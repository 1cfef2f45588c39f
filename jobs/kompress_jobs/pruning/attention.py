"""Attention layers as libraries write them: where their heads are, and what must be told when there are fewer.

Known are timm's `Attention` and those of transformers (BERT, RoBERTa, DistilBERT, ViT, wav2vec2, AST): linear layers for query, key
and value (one, or one each), reshaped to (heads, size of a head), and one for the output. They are told apart by the names of their
layers, so a user's own attention written the same way will do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

HEADS = ("num_heads", "num_attention_heads", "n_heads")
"""Attributes that hold the number of heads."""
WIDTHS = ("attn_dim", "all_head_size")
"""Attributes that hold heads x size of a head."""
SPLIT = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"))
OUTPUTS = ("proj", "out_proj", "o_proj", "out_lin")


@dataclass(frozen=True)
class Attention:
    """An attention layer whose heads can be removed."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    """One layer that holds query, key and value one after the other, or three."""
    output: str
    """Full name of the layer that joins the heads."""

    @property
    def heads(self) -> int:
        """How many there are now."""
        return int(getattr(self.module, heads_attribute(self.module)))

    def rows(self) -> list[tuple[nn.Linear, int]]:
        """The layers whose outputs are heads, and how many times the heads stand in them."""
        return [(self.module.get_submodule(name), 3 if len(self.inputs) == 1 else 1) for name in self.inputs]  # type: ignore[misc]


def heads_attribute(module: nn.Module) -> str:
    """Name of the attribute that holds the number of heads; empty where the module is no attention layer."""
    return next((name for name in HEADS if isinstance(getattr(module, name, None), int)), "")


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """All modules that share their width among heads, known or not: those that say how many, and hold no other that does (a block of
    torchvision's repeats what its attention says)."""
    saying = {name: module for name, module in model.named_modules() if heads_attribute(module)}
    return {
        name: module
        for name, module in saying.items()
        if not any(other.startswith(f"{name}." if name else "") for other in saying if other != name)
    }


def find(model: nn.Module) -> tuple[list[Attention], dict[str, str]]:
    """Attention layers whose heads can be removed, and the others with the reason."""
    found, unknown = [], {}
    for name, module in layers(model).items():
        read = _read(model, name, module)
        if isinstance(read, Attention):
            found.append(read)
        elif read:
            unknown[name] = read
    return found, unknown


def _read(model: nn.Module, name: str, module: nn.Module) -> Attention | str:
    """The layer, why its heads can't be removed, or nothing to say: it only mentions heads."""
    inputs = ("qkv",) if _linear(module, "qkv") else next((names for names in SPLIT if all(_linear(module, n) for n in names)), ())
    if not inputs:
        return f"{type(module).__name__} keeps its weights in a way that is not known" if list(module.parameters()) else ""
    parent = name.rpartition(".")[0]
    outputs = [f"{name}.{own}" if name else own for own in OUTPUTS if _linear(module, own)]
    beside = f"{parent}.output.dense" if parent else "output.dense"
    outputs += [beside] if _linear(model, beside) else []
    attention = Attention(name, module, inputs, outputs[0]) if outputs else None
    if attention is None:
        return f"{type(module).__name__} has no layer that joins its heads"
    width = model.get_submodule(attention.output).in_features
    if list(module.parameters(recurse=False)) or list(module.buffers(recurse=False)):
        return f"{type(module).__name__} has weights of its own for each head"
    if width % attention.heads or any(layer.out_features != times * width for layer, times in attention.rows()):
        return f"the {attention.heads} heads of {type(module).__name__} share keys or values"
    other = [n for n, child in module.named_children() if n in ("gate", "norm") and list(child.parameters())]
    return f"{type(module).__name__}.{other[0]} spans all heads" if other else attention


def _linear(module: nn.Module, name: str) -> bool:
    try:
        return isinstance(module.get_submodule(name), nn.Linear)
    except AttributeError:
        return False


@torch.no_grad()
def remove_heads(model: nn.Module, attention: Attention, heads: Sequence[int]) -> None:
    """Remove heads in place, and tell the layer how many are left (the trap: nothing else does, neither here nor after a rebuild)."""
    before = attention.heads
    joined = model.get_submodule(attention.output)
    assert isinstance(joined, nn.Linear)
    size = joined.in_features // before
    kept = torch.tensor([head for head in range(before) if head not in set(heads)])
    columns = (kept[:, None] * size + torch.arange(size)).flatten()
    for layer, times in attention.rows():
        width = layer.out_features // times
        rows = torch.cat([columns + width * turn for turn in range(times)])
        layer.weight = nn.Parameter(layer.weight[rows.to(layer.weight.device)].clone(), layer.weight.requires_grad)
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias[rows.to(layer.bias.device)].clone(), layer.bias.requires_grad)
        layer.out_features = len(rows)
    joined.weight = nn.Parameter(joined.weight[:, columns.to(joined.weight.device)].clone(), joined.weight.requires_grad)
    joined.in_features = len(columns)
    setattr(attention.module, heads_attribute(attention.module), len(kept))
    for name in WIDTHS:
        if hasattr(attention.module, name):
            setattr(attention.module, name, len(columns))
