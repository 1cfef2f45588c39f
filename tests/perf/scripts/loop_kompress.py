"""kompress's training loop, as a stage runs it: samples a second, what it waits for, what memory it takes.

[torchrun --nproc-per-node=2] loop_kompress.py FOLDER EPOCHS [JSON]: {model, dataset, task, settings} where it is not ResNet-18 on digits,
and `onDisk` for a data set that is read while it trains, as one larger than memory is.
"""

import dataclasses
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist
from device import wait
from stage import context_of, stage_input
from watch import Memory, Stopwatch

from kompress_jobs import registry
from kompress_jobs.bench import Bench
from kompress_jobs.samples import images
from kompress_jobs.training import loop
from kompress_jobs.training.state import build_state

SETTINGS = {"batchSize": 64, "learningRate": 1e-3, "augmentation": "None", "schedule": "Constant"}
LIBRARIES = {"hf": "transformers"}
"""What a scheme of a model's source imports when it is built, where it is called otherwise."""


def main() -> None:
    folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
    asked: dict[str, Any] = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    if asked.get("onDisk"):
        images.IN_MEMORY_BYTES = 0
    stage = stage_input(
        folder,
        {"name": "adapt", "fineTune": {"epochs": epochs} | SETTINGS | asked.get("settings", {})},
        "model",
        model=asked.get("model", {"source": "torchvision://resnet18"}),
        dataset=asked.get("dataset", {"source": "builtin://digits", "imageSize": 32}),
        task=asked.get("task", "image-classification"),
    )
    scheme = stage.model.source.partition("://")[0]
    importlib.import_module(LIBRARIES.get(scheme, scheme))
    registry.load("tasks", stage.task, field="")
    registry.load("models", scheme, field="")
    context = context_of(stage, folder)
    memory = Memory()
    bench = Bench(context)
    found = bench.take("model")
    spec = stage.stage.spec
    reading, saving = Stopwatch(), Stopwatch()
    preprocessing = type(found.description.preprocessing)
    preprocessing.__call__ = reading.around(preprocessing.__call__)
    loop.batches = reading.around_each(loop.batches)
    for name in ("boundary", "finish"):
        setattr(bench.checkpoints, name, saving.around(getattr(bench.checkpoints, name)))
    for count in (1, epochs):  # the first is the warm-up
        plan = dataclasses.replace(bench.plan(found, spec, count), validate=lambda _: {})
        state = build_state(found.model, spec, sample=found.sample())
        if dist.is_initialized():
            dist.barrier()
        wait()
        reading.seconds = saving.seconds = 0.0
        start = time.perf_counter()
        bench.train(plan, state)
        wait()
        seconds = time.perf_counter() - start
    if context.rank == 0:
        print(f"samples/s {plan.order.steps * plan.order.batch / seconds}")
        print(f"seconds {seconds}")
        print(f"reading {reading.seconds}")
        print(f"saving {saving.seconds}")
        print(f"memory {memory.above()}")
    if dist.is_initialized():
        dist.destroy_process_group()


main()
