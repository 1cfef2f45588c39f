"""Samples per second of kompress's training loop, as a stage runs it:  torchrun --nproc-per-node=2 loop_kompress.py FOLDER EPOCHS"""

import dataclasses
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from kompress_api.contract import JobIdentity, StageInput
from kompress_api.job import Evaluation
from kompress_api.places import Dataset, ModelSource, Output, Tracking
from kompress_api.stages.stage import Stage
from kompress_jobs.context import Events, StageContext, StopSignal
from kompress_jobs.engine import Bench
from kompress_jobs.storage.checkpoints import CheckpointStore
from kompress_jobs.storage.store import open_store
from kompress_jobs.training.state import build_state


def main() -> None:
    folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo")
    settings = {"epochs": epochs, "batchSize": 64, "learningRate": 1e-3, "augmentation": "None", "schedule": "Constant"}
    stage = StageInput(
        job=JobIdentity(name="perf", uid="perf"),
        kind="fineTune",
        name="adapt",
        attempt=1,
        task="image-classification",
        seed=0,
        evaluation=Evaluation(),
        model=ModelSource(source="torchvision://resnet18"),
        dataset=Dataset(source="builtin://digits", image_size=32),
        output=Output(uri=f"file://{folder}"),
        tracking=Tracking(uri="sqlite:///unused"),
        stage=Stage.model_validate({"name": "adapt", "fineTune": settings}),
        inputs=[{"role": "model", "stage": "source"}],
    )
    context = StageContext(
        input=stage,
        rank=rank,
        world_size=world_size,
        local_rank=rank,
        device=torch.device("cpu"),
        scratch=folder,
        events=Events(folder, rank=rank),
        stop=StopSignal(),
        checkpoints=CheckpointStore(open_store(stage.output, "output"), "0" * 64, "perf", 1),
    )
    bench = Bench(context)
    found = bench.take("model")
    spec = stage.stage.spec
    for count in (1, epochs):  # the first is the warm-up
        plan = dataclasses.replace(bench.plan(found, spec, count), validate=lambda _: {})
        state = build_state(found.model, spec)
        dist.barrier()
        start = time.perf_counter()
        bench.train(plan, state)
        seconds = time.perf_counter() - start
    if rank == 0:
        print(f"samples/s {plan.order.steps * plan.order.batch / seconds}")
    dist.destroy_process_group()


main()
