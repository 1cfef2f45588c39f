"""A stage's context as a worker makes it, for scripts that look at a part of a stage."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from device import DEVICE

from kompress_api.contract import JobIdentity, StageInput
from kompress_api.job import Evaluation
from kompress_api.places import Dataset, ModelSource, Output, Tracking
from kompress_api.stages.stage import Stage
from kompress_jobs.context import Events, StageContext, StopSignal
from kompress_jobs.storage.checkpoints import CheckpointStore
from kompress_jobs.storage.store import open_store


def stage_input(folder: Path, stage: dict[str, Any], role: str, *, model: Any, dataset: Any, task: str, seed: int = 0) -> StageInput:
    """A stage whose only input, spec.model, plays `role`."""
    parsed = Stage.model_validate(stage)
    return StageInput(
        job=JobIdentity(name="perf", uid="perf"),
        kind=parsed.kind,
        name=parsed.name,
        attempt=1,
        task=task,
        seed=seed,
        evaluation=Evaluation(),
        model=ModelSource.model_validate(model),
        dataset=Dataset.model_validate(dataset),
        output=Output(uri=f"file://{folder}"),
        tracking=Tracking(uri="sqlite:///unused"),
        stage=parsed,
        inputs=[{"role": role, "stage": "source"}],
    )


def context_of(stage: StageInput, folder: Path) -> StageContext:
    """Joins the gang of torchrun where there is one, on the CPU."""
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        dist.init_process_group("gloo")
    return StageContext(
        input=stage,
        rank=rank,
        world_size=world_size,
        local_rank=rank,
        device=DEVICE if world_size == 1 else torch.device("cpu"),
        scratch=folder,
        events=Events(folder, rank=rank),
        stop=StopSignal(),
        checkpoints=CheckpointStore(open_store(stage.output, "output"), "0" * 64, "perf", 1),
    )
