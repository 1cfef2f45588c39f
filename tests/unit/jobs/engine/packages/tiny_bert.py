"""A BERT of some 40 thousand weights in a folder as save_pretrained writes it, with a tokenizer that was trained on the docstrings."""

import functools
import json
from pathlib import Path

import torch

from kompress_jobs.builtins import docstrings

CONFIG = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


@functools.cache
def tokenizer() -> str:
    """tokenizer.json of a WordPiece with BERT's special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    found = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    found.normalizer = normalizers.BertNormalizer(lowercase=True)
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=CONFIG["vocab_size"], special_tokens=special, show_progress=False)
    found.train_from_iterator([row.text for row in docstrings.rows()[::10]], trainer)
    found.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return found.to_str()


def write(folder: Path, *, weights: bool = True, tokens: bool = True, **changes: object) -> Path:
    """The folder; its weights are those of a bare BertModel, as pretrained ones often are."""
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    content = CONFIG | changes
    (folder / "config.json").write_text(json.dumps(content))
    if tokens:
        (folder / "tokenizer.json").write_text(tokenizer())
    if weights:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            BertModel(BertConfig.from_dict(content)).save_pretrained(folder)
    return folder
