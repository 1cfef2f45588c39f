"""Hugging Face's Trainer on the same texts, tokenized beforehand and padded batch by batch as its course does:
torchrun --nproc-per-node=2 fine_tune_trainer.py FOLDER JSON"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import Dataset as TorchDataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from kompress_api.places import Dataset
from kompress_jobs import data


class Rows(TorchDataset):
    """Tokenized texts with their labels."""

    def __init__(self, encodings: list[list[int]], labels: list[int]) -> None:
        self.encodings, self.labels = encodings, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.encodings[index], "labels": self.labels[index]}


class Clock(TrainerCallback):
    """Times all epochs but the first."""

    start = end = 0.0
    steps = 0

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        dist.barrier()
        self.end = time.perf_counter()
        if not self.start:
            self.start, self.steps = self.end, state.global_step

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps = state.global_step - self.steps


def main() -> None:
    folder, asked = Path(sys.argv[1]), json.loads(sys.argv[2])
    dist.init_process_group("gloo")
    dataset, settings, name = asked["dataset"], asked["settings"], asked["model"]["source"].removeprefix("hf://")
    known = data.load(Dataset.model_validate(dataset), folder)
    texts, _ = known.train.read(torch.arange(len(known.train)))
    tokenizer = AutoTokenizer.from_pretrained(name)
    encodings = tokenizer(texts, truncation=True, max_length=dataset["maxLength"])["input_ids"]
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings["batchSize"] // dist.get_world_size(),
        learning_rate=settings["learningRate"],
        lr_scheduler_type="constant",
        num_train_epochs=1 + asked["epochs"],
        bf16=settings.get("precision") == "BF16",
        use_cpu=True,
        dataloader_drop_last=True,
        save_strategy="no",
        logging_steps=50,
        report_to=[],
        disable_tqdm=True,
    )
    clock = Clock()
    Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(name, num_labels=len(known.labels)),
        args=arguments,
        train_dataset=Rows(encodings, known.train.labels.tolist()),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[clock],
    ).train()
    if dist.get_rank() == 0:
        print(f"samples/s {clock.steps * settings['batchSize'] / (clock.end - clock.start)}")
    dist.destroy_process_group()


main()
