"""How large a model is: parameters, multiply-accumulates for one sample, bytes of its weights."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kompress_jobs.loading.bundle import weights_bytes
from kompress_jobs.samples import Inputs


def parameters(model: nn.Module) -> int:
    """Number of weights, tied ones counted once; buffers are none."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, sample: Inputs) -> int:
    """Multiply-accumulates of a forward pass of one sample: half of what `torch.utils.flop_counter` counts.

    `sample` holds one sample, (1, ...); the model may lie on the meta device, with the sample. Attention is counted by the products that
    it consists of: of the fused kernels the counter knows others on each device, and in each version of PyTorch; of those behind
    nn.MultiheadAttention and nn.TransformerEncoderLayer none.
    """
    training, fused = model.training, torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.eval()(*sample)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        model.train(training)
    return int(counter.get_total_flops()) // 2


def sizes(model: nn.Module, sample: Inputs) -> dict[str, float]:
    """`parameters`, `macs`, `modelSizeBytes`."""
    return {
        "parameters": parameters(model),
        "macs": macs(model, sample),
        "modelSizeBytes": weights_bytes(model.state_dict()),
    }
