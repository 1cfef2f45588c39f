"""text: texts to token numbers by the model's own tokenizer, filled up to the longest of the batch.

The tokenizer is a tokenizer.json, read by the `tokenizers` library alone: a bundle is reloaded, and an exported graph fed,
where transformers is not installed. It is data; nothing of it is executed.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field

from kompress_api.errors import ArtifactCorrupt, MethodRefused
from kompress_jobs import preprocessing
from kompress_jobs.samples import Inputs, Samples
from kompress_jobs.samples.splits import Data

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tokenizer.json"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TOKENIZERS_KEPT = 4
DEFAULT_LENGTH = 512
"""Tokens of a text where dataset.maxLength is absent, even if the model would take more: time and memory grow with its square."""


class Preprocessing(preprocessing.Preprocessing):
    """How a text becomes numbers."""

    type: Literal["text"] = "text"
    """This module."""
    limited: ClassVar[bool] = True
    max_length: int
    """Most tokens of a text, the special ones included; what comes behind them is cut off."""
    pad_id: int
    """Token that short texts of a batch are filled up with, on the right; attention_mask is 0 there."""
    inputs: list[Literal["input_ids", "attention_mask", "token_type_ids"]]
    """What the model takes, in the order of its arguments."""
    tokenizer: bytes = Field(default=b"", exclude=True, repr=False)
    """The content of tokenizer.json, which lies beside the settings."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.inputs)

    @property
    def axes(self) -> tuple[dict[int, str], ...]:
        return tuple({1: "length"} for _ in self.inputs)

    def __call__(self, samples: Samples) -> Inputs:
        """Texts -> int64 (batch, longest) for each input, on the CPU."""
        assert isinstance(samples, list)
        found = open_tokenizer(self.tokenizer, self.max_length).encode_batch_fast(samples)
        rows = {
            "input_ids": ([encoding.ids for encoding in found], self.pad_id),
            "attention_mask": ([encoding.attention_mask for encoding in found], 0),
            "token_type_ids": ([encoding.type_ids for encoding in found], 0),
        }
        return tuple(filled(*rows[name]) for name in self.inputs)

    def sample(self, batch: int = 2) -> Inputs:
        token = 0 if self.pad_id else 1
        values = {"input_ids": token, "attention_mask": 1, "token_type_ids": 0}
        return tuple(torch.full((batch, self.max_length), values[name], dtype=torch.int64) for name in self.inputs)

    def shortened(self, samples: Samples) -> int:
        assert isinstance(samples, list)
        return sum(len(encoding.ids) > self.max_length for encoding in open_tokenizer(self.tokenizer, None).encode_batch_fast(samples))

    def files(self) -> Mapping[str, bytes]:
        return {FILE: self.tokenizer}

    def load(self, folder: Path) -> "Preprocessing":
        """Raises ArtifactCorrupt where the tokenizer is missing or damaged."""
        path = folder / FILE
        try:
            content = path.read_bytes()
            open_tokenizer(content, self.max_length)
        except Exception as error:  # the library raises plain Exceptions
            raise ArtifactCorrupt(f"{path} is no tokenizer: {error}", hint="make the bundle again") from error
        return self.model_copy(update={"tokenizer": content})


@functools.lru_cache(TOKENIZERS_KEPT)
def open_tokenizer(content: bytes, max_length: int | None) -> "Tokenizer":
    """The tokenizer of a tokenizer.json, which cuts texts to `max_length` and fills none up."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_buffer(content)
    found.no_padding()
    if max_length is None:
        found.no_truncation()
    else:
        found.enable_truncation(max_length)
    return found


def filled(rows: list[list[int]], value: int) -> torch.Tensor:
    """Rows of unlike lengths as one int64 (rows, longest), at least one column wide."""
    longest = max(1, *map(len, rows)) if rows else 1
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows], dtype=torch.int64).reshape(len(rows), longest)


def require_texts(data: Data) -> None:
    """Raise MethodRefused for images or sound."""
    first, _ = data.train.read(torch.arange(1))
    if not isinstance(first, list):
        raise MethodRefused(
            "the data holds no texts",
            hint="use builtin://docstrings or format: parquet, arrow, csv or json, or the task of your data",
            field="spec.dataset.source",
        )
