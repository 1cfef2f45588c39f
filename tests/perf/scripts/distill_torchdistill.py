"""torchdistill's DistillationBox as its example for image classification drives it, validation after each epoch included.

python distill_torchdistill.py JSON: what a peer's script is given, and `student`, `distill`
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from device import DEVICE
from original import Original, answer, given
from torch.utils.data import RandomSampler, TensorDataset
from torchdistill.core.distillation import get_distillation_box

from kompress_api.places import ModelSource
from kompress_jobs.loading import assemble
from kompress_jobs.training.order import learning_rate


def distill(original: Original) -> dict[str, Any]:
    asked, settings = original.asked, original.settings
    student = assemble.load_source(
        ModelSource.model_validate(asked["student"]),
        original.data,
        asked["task"],
        asked["seed"],
        Path(tempfile.mkdtemp()),
        field="student",
        head="Keep",
    ).model.to(DEVICE)
    samples, _ = original.data.train.read(torch.arange(len(original.data.train)))
    inputs = original.description.preprocessing(samples)[0].to(DEVICE)
    steps = original.order(asked["epochs"]).steps
    whole = {"module_path": ".", "module_io": "output"}
    kd = {f"{who}_{key}": value for who in ("student", "teacher") for key, value in whole.items()}
    kd |= {"temperature": asked["distill"]["temperature"], "alpha": 1 - asked["distill"]["alpha"], "reduction": "batchmean"}
    config = {
        "num_epochs": asked["epochs"],
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler, "kwargs": {}},
            "kwargs": {"batch_size": settings.batch_size, "drop_last": True},
        },
        "teacher": {"forward_proc": "forward_batch_only", "sequential": [], "requires_grad": False, "frozen_modules": []},
        "student": {"forward_proc": "forward_batch_only", "sequential": [], "requires_grad": True, "frozen_modules": []},
        "optimizer": {
            "key": "AdamW",
            "kwargs": {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "fused": True},
        },
        "scheduler": {
            "key": "LambdaLR",
            "kwargs": {"lr_lambda": lambda step: learning_rate(settings.schedule, step, steps, settings.warmup_fraction)},
            "scheduling_step": 1,
        },
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": kd}, "weight": 1.0}}},
        },
    }
    data = {"train": TensorDataset(inputs, original.data.train.labels.to(DEVICE))}
    box = get_distillation_box(original.model, student, data, config, DEVICE, None, False, 1)
    start, seen = time.perf_counter(), 0
    for epoch in range(asked["epochs"]):
        box.pre_epoch_process(epoch=epoch)
        for batch, targets, more in box.train_data_loader:
            loss = box.forward_process(batch, targets, more)
            box.post_forward_process(loss=loss)
            seen += len(batch)
        original.accuracy(student, original.data.validation)
        box.post_epoch_process()
    seconds = time.perf_counter() - start
    return {"rate": seen / seconds, "accuracy": original.accuracy(student)}


answer(lambda: distill(given()))
