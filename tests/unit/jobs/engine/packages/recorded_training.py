"""Trainings whose every loss is written down.

`python -m recorded_training FOLDER SETTINGS [whole stopped resumed]` is one rank of a gang that is stopped and goes on, or does a part
of it; SETTINGS are those of fineTune that differ, as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from stage_contexts import CPU, build_context

from kompress_api.errors import Interrupted
from kompress_api.stages.fine_tune import FineTune
from kompress_jobs.bench import Bench
from kompress_jobs.training.state import build_state

STAGE: dict[str, Any] = {"fineTune": {"epochs": 2, "batchSize": 128, "learningRate": 1e-2, "ema": {"decay": 0.9}}}
MODEL = {"source": "python://tiny_models:normless"}
STOP_AFTER = 7
"""Steps after which one rank is asked to stop."""


def record(
    folder: Path,
    *,
    stop_rank: int | None = None,
    resume: bool = False,
    every_steps: int | None = None,
    settings: dict[str, Any] | None = None,
    **context: Any,
) -> dict[str, Any]:
    """Train, and return the mean loss of every step over the ranks, whether it was interrupted, and the last figures."""
    # Small batches then: a step must not be over before a checkpoint is.
    policy = {"checkpoint": {"everySteps": every_steps}, "batchSize": 8} if every_steps else {}
    asked = STAGE["fineTune"] | policy | (settings or {})
    if asked.get("parallelism") == "FSDP2":
        context |= {"device": CPU}  # its processes would share a GPU
    made = build_context(folder, {"fineTune": asked}, **({"model": MODEL} | context))
    assert made.input.stage is not None
    spec = made.input.stage.spec
    assert isinstance(spec, FineTune)
    bench = Bench(made)
    found = bench.take("model")
    state = build_state(found.model, spec)
    if resume and (saved := bench.checkpoints.newest()):
        bench.checkpoints.restore(saved, state)
    plan = bench.plan(found, spec, spec.epochs)
    learn, losses = plan.objective, {}

    def recorded(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        loss = learn(model, batch)
        losses[state.step] = losses.get(state.step, 0.0) + float(loss.detach()) * batch.share
        if state.step + 1 == STOP_AFTER and made.rank == stop_rank:
            made.stop.request()
        return loss

    object.__setattr__(plan, "objective", recorded)
    message = ""
    try:
        bench.train(plan, state)
    except Interrupted as stopped:
        message = str(stopped)
    steps = sorted(losses)
    means = bench.gang.mean(torch.tensor([losses[step] for step in steps], dtype=torch.float64)).tolist()
    figures = bench.score(found, bench.data.test, intervals=False).values
    return {"losses": dict(zip(map(str, steps), means, strict=True)), "interrupted": message, "figures": figures}


def main() -> None:
    folder = Path(sys.argv[1])
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    gang = {"rank": rank, "world_size": world_size}
    trainings: dict[str, dict[str, Any]] = {"whole": {}, "stopped": {"stop_rank": 1}, "resumed": {"resume": True, "attempt": 2}}
    told = {
        name: record(folder, scratch=name, settings=json.loads(sys.argv[2]), **trainings[name], **gang)
        for name in sys.argv[3:] or trainings
    }
    if rank == 0:
        (folder / "told.json").write_text(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
