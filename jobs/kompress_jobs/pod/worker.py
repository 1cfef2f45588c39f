"""What torchrun starts in each rank: the frame around a stage. The stage itself is a module of `kompress_jobs.stages`.

It sets seeds, threads and the process group, answers from the store where the work is done already (`execute.py`), else runs
the stage, and leaves either the result (rank 0) or the error, with its microsecond, for the launcher.
"""

import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from kompress_api.contract import ENV_STAGE, ENV_TRACKING, StageInput, StageSuccess
from kompress_api.errors import Interrupted, KompressError
from kompress_api.names import PREFLIGHT, REPORT
from kompress_jobs import registry
from kompress_jobs.context import Events, StageContext, StageOutput, StopSignal
from kompress_jobs.failures import describe
from kompress_jobs.pod import termination
from kompress_jobs.storage.local import write_atomically

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
PR_SET_PDEATHSIG = 1
"""prctl(2)."""


def main(scratch: Path) -> int:
    """Run this rank; returns the exit code."""
    rank = int(os.environ["RANK"])
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s rank {rank} %(name)s: %(message)s", stream=sys.stderr)
    faulthandler.enable()
    die_with_parent()
    try:
        work(scratch, rank)
        return 0
    except BaseException as error:
        failure = describe(error, rank=rank, checkpoint_step=getattr(error, "checkpoint_step", None))
        termination.record(failure, scratch)
        log.error("%s: %s", failure.reason, error, exc_info=None if isinstance(error, KompressError) else error)
        return failure.exit_code


def work(scratch: Path, rank: int) -> None:
    """Run the stage, or find it done."""
    stage = StageInput.model_validate_json(os.environ[ENV_STAGE])
    os.environ[ENV_TRACKING] = stage.tracking.uri
    module = registry.load("stages", stage.kind, field=f"spec.stages ({stage.name})")
    if stage.kind in (PREFLIGHT, REPORT):
        result = module.run(stage, scratch, Events(scratch, rank=rank))
    else:
        result = run_in_gang(stage, module, scratch, rank)
    if rank == 0:
        write_atomically(scratch / termination.RESULT, result.model_dump_json(by_alias=True, exclude_none=True).encode())


def run_in_gang(stage: StageInput, module: ModuleType, scratch: Path, rank: int) -> StageSuccess:
    """A user's stage, with its process group, key and checkpoints."""
    from kompress_jobs.evaluation import seeds
    from kompress_jobs.planning import plan
    from kompress_jobs.pod import execute
    from kompress_jobs.storage.checkpoints import CheckpointStore
    from kompress_jobs.storage.store import open_store
    from kompress_jobs.training.refusals import refuse_shared_gpus

    stop = StopSignal()
    stop.listen()  # preflight and report have nothing to save: SIGTERM ends them at once
    world_size, local_rank = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    device, alone_there = prepare_torch(stage.seed, local_rank, int(os.environ["LOCAL_WORLD_SIZE"]))
    store = open_store(stage.output, "output")
    planned = plan.read(store, stage)
    key = plan.own_key(stage, planned)
    context = StageContext(
        input=stage,
        rank=rank,
        world_size=world_size,
        local_rank=local_rank,
        device=device,
        scratch=scratch,
        events=Events(scratch, rank=rank),
        stop=stop,
        checkpoints=CheckpointStore(store, key, stage.job.uid, stage.attempt),
    )
    execute.tell_data(context, planned)
    shared = device.type == "cuda" and not alone_there
    if shared:
        context.events.warning("there are more processes than GPUs here: they share them (processesPerNode: auto starts one a GPU)")

    def run(context: StageContext) -> StageOutput:
        if rank == 0:
            plan.refuse_moved(stage, planned)
        if shared and stage.stage is not None:
            refuse_shared_gpus(stage.stage.spec, field=f"spec.stages({stage.name}).{stage.kind}")
        output: StageOutput = module.run(context)
        return output

    with process_group(world_size, device if alone_there else None):
        try:
            return execute.execute(context, store, key, run, planned)
        except Interrupted as error:
            leave_together(world_size)
            with contextlib.suppress(KompressError):
                error.checkpoint_step = seeds.newest_step(context) if local_rank == 0 else None  # type: ignore[attr-defined]
            raise


def prepare_torch(seed: int, local_rank: int, processes: int) -> tuple["torch.device", bool]:
    """Seeds, threads, this rank's device, and whether that is a GPU of its own: more processes than GPUs share them."""
    import torch

    from kompress_jobs.evaluation.seeds import seed_generators

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    seed_generators(seed)
    gpus = torch.cuda.device_count()
    if gpus == 0:
        return torch.device("cpu"), False
    index = local_rank % gpus
    torch.cuda.set_device(index)
    return torch.device("cuda", index), processes <= gpus


@contextlib.contextmanager
def process_group(world_size: int, gpu: "torch.device | None") -> Iterator[None]:
    """The default process group of a gang: nccl for what lies on this rank's own `gpu`, gloo for all else (nccl refuses a GPU that two
    ranks share). None for one process."""
    if world_size == 1:
        yield
        return
    import torch.distributed as dist

    dist.init_process_group("gloo" if gpu is None else "cpu:gloo,cuda:nccl", device_id=gpu)
    yield
    dist.destroy_process_group()


def leave_together(world_size: int) -> None:
    """Wait for the other ranks' end: torchrun kills those that are still writing soon after the first is gone."""
    if world_size > 1:
        import torch
        import torch.distributed as dist

        with contextlib.suppress(Exception):
            dist.all_reduce(torch.zeros(1))


def die_with_parent() -> None:
    """Let the kernel kill this process when the launcher is killed, so that none trains on unseen (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # a collective or an upload of a failed rank may still hold a thread
