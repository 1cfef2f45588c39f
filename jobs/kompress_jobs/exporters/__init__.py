"""File formats. The format's name is the module, with

- `SUFFIX`, of its file, and `QUANTIZER`, the module of `quantizers/` that writes its quantized graphs, where there is one,
- `lower(model, preprocessing, path, batch, opset, metadata)`, which writes it,
- `rehearse(model, preprocessing, batch, field)`, which refuses by field path what can't be written, without writing,
- `open_engine(path, threads) -> Engine`, which reads it without importing what wrote it.
"""

from collections.abc import Callable, Sequence
from typing import Any

Engine = Callable[[Sequence[Any]], Any]
"""Inputs as numpy arrays, in the model's order, the batch first -> scores (batch, classes)."""
