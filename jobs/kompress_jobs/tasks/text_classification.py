"""text-classification: one label a text.

Texts are not augmented: what would have to be kept of a text when words are dropped or exchanged depends on the language and
on what the labels mean, which nobody here knows.
"""

import functools
import inspect
import json

import torch
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_jobs.classification import accuracy, chance, figures, logits, loss, predictions, rows
from kompress_jobs.models import Pretrained
from kompress_jobs.preprocessing.text import DEFAULT_LENGTH, Preprocessing, require_texts
from kompress_jobs.samples import Samples
from kompress_jobs.samples.splits import Data

__all__ = ["accuracy", "augment", "chance", "draw", "figures", "logits", "loss", "predictions", "preprocessing_for", "refitted", "rows"]

DRAWS = {"None": 0, "Light": 0}
"""Random numbers a sample. Light, the default, keeps the meaning of a sample for certain: of texts that leaves nothing to change."""
BYTES_PAD, BYTES_END = 0, 1
BYTES_OFFSET = 3
BYTES_SIZE = BYTES_OFFSET + 256


def preprocessing_for(model: nn.Module, data: Data, pretrained: Pretrained, *, field: str) -> Preprocessing:
    """For a model that comes without a tokenizer: each byte of the UTF-8 text is a token, see `byte_tokenizer`.

    The model gets `attention_mask` too where the second argument of its forward is called a mask. Raises MethodRefused for a model
    that can't take them.
    """
    require_texts(data)
    parameters = [name for name in inspect.signature(model.forward).parameters if name != "self"]
    masked = len(parameters) > 1 and "mask" in parameters[1]
    found = Preprocessing(
        max_length=data.max_length or DEFAULT_LENGTH,
        pad_id=BYTES_PAD,
        inputs=["input_ids", "attention_mask"] if masked else ["input_ids"],
        tokenizer=byte_tokenizer(),
    )
    require_accepted(
        model,
        found,
        hint=f"without a tokenizer of its own a model gets bytes: numbers from 0 to {BYTES_SIZE - 1}, 0 to fill up",
        field=field,
    )
    return found


def refitted(preprocessing: Preprocessing, model: nn.Module, data: Data, *, field: str) -> Preprocessing:
    """The preprocessing of a bundle for data with another maxLength; raises MethodRefused where the model can't take it."""
    require_texts(data)
    if data.max_length in (0, preprocessing.max_length):
        return preprocessing
    found = preprocessing.model_copy(update={"max_length": data.max_length})
    require_accepted(model, found, hint="lower dataset.maxLength", field=field)
    return found


def require_accepted(model: nn.Module, preprocessing: Preprocessing, *, hint: str, field: str) -> None:
    """Raise MethodRefused with the model's own words when it can't take texts of the full length."""
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(*preprocessing.sample(1))
    except Exception as error:
        raise MethodRefused(f"the model takes no texts of {preprocessing.max_length} tokens: {error}", hint=hint, field=field) from error
    finally:
        model.train(training)


@functools.cache
def byte_tokenizer() -> bytes:
    """A tokenizer.json whose tokens are bytes: 0 fills up, 1 ends a text, 2 is not used, 3 + byte.

    The numbers are those of ByT5 (L. Xue et al., 2021, https://arxiv.org/abs/2105.13626).
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    names = {letter: number for number, letter in byte_letters().items()}
    special = {"<pad>": BYTES_PAD, "</s>": BYTES_END, "<unk>": 2}
    vocabulary = special | {letter: BYTES_OFFSET + number for letter, number in names.items()}
    found = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", BYTES_END)])
    return json.dumps(json.loads(found.to_str()), sort_keys=True).encode()


def byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in byte-level vocabularies: printable ones for themselves, the others from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + index) for index, byte in enumerate(others)}


def draw(mode: str, samples: int, generator: torch.Generator) -> torch.Tensor:
    """No random numbers, (samples, 0)."""
    return torch.empty(samples, DRAWS[mode])


def augment(texts: Samples, mode: str, draws: torch.Tensor) -> Samples:
    """Texts as they are."""
    return texts
