"""Loss: a layer is worth the loss of the model that lacks it, measured over `calibrationBatches` and not estimated.

B.-K. Kim et al., Shortened LLaMA, 2024, https://arxiv.org/abs/2402.02834 (their criterion PPL). A model has few layers, so each can be
left out once; of channels, heads and weights there are too many.
"""

from kompress_jobs.importances import Evidence

EVIDENCE = Evidence.LOSS


def without(loss: float) -> float:
    """Of a whole layer of the model; `loss` is that of the model without it."""
    return loss
