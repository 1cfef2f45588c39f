"""What answers for a model that was read from a file, whichever library runs it."""

from collections.abc import Callable, Sequence
from typing import Any

Engine = Callable[[Sequence[Any]], Any]
"""Inputs as numpy arrays, in the model's order, the batch first -> scores (batch, classes)."""
