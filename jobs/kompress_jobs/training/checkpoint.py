"""Checkpoints of a training: torch.distributed.checkpoint writes them beside the loop, the store keeps and commits them.

A checkpoint is saved at a step boundary that all ranks agree on (`Gang.vote`). The tensors are copied, then written to the
local disk (`tensor_files`) and uploaded by a thread; when every rank has said that its part is up, rank 0 commits.
`memory.json` beside the tensors holds what is no tensor: the state's numbers, the stage's own memory and the metrics that
MLflow has not got. What is read back are plain tensors by name, so another number of processes can go on.
"""

import json
import math
import shutil
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import BlockingAsyncStager

from kompress_api.errors import ArtifactMissing, Interrupted, LossNotFinite
from kompress_api.training import CheckpointPolicy
from kompress_jobs.context import StageContext
from kompress_jobs.gang import Gang
from kompress_jobs.training.plan import Plan
from kompress_jobs.training.sharding import local
from kompress_jobs.training.state import State
from kompress_jobs.training.tensor_files import TensorReader, TensorWriter, file_of

if TYPE_CHECKING:
    from kompress_jobs.storage.checkpoints import Checkpoint

MEMORY = "memory.json"
warnings.filterwarnings("ignore", "torch.distributed is disabled")  # torch says it of every checkpoint of a single process
ROUNDS = 5
"""Checkpoints that are tried before the stage starts anew."""


@dataclass(frozen=True)
class Saved:
    """A committed checkpoint, on the local disk."""

    step: int
    """Steps of the whole stage."""
    folder: Path
    numbers: dict[str, Any]
    """`State.numbers`."""
    stage: dict[str, Any]
    """`Plan.stage_memory`."""


class Checkpoints:
    """Saves and finds the checkpoints of one stage."""

    def __init__(self, context: StageContext, gang: Gang) -> None:
        self.context, self.gang, self.store = context, gang, context.checkpoints
        self.folder = context.scratch / "checkpoints"
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: tuple[int, Future[None]] | None = None
        self.voted = False
        self.since = time.monotonic()
        self.committing: Future[Any] | None = None

    def newest(self) -> Saved | None:
        """Collective: fetch the committed checkpoint with the highest step of any attempt. One that vanishes while read gives
        way to the next."""
        for _ in range(ROUNDS):
            found = self.gang.from_rank_0(self.store.newest)
            if found is None:
                return None
            folder = self.folder / f"resume-{found.uid}-{found.attempt}-{found.step}"
            gone = self.context.local_rank == 0 and not self._fetched(found, folder)
            if not self.gang.gather(torch.tensor([gone])).any():
                return self._saved(found.step, folder)
        return None

    def _fetched(self, found: "Checkpoint", folder: Path) -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            self.store.fetch(found, folder)
        except ArtifactMissing:
            return False
        return True

    def _saved(self, step: int, folder: Path) -> Saved:
        memory = json.loads((folder / MEMORY).read_text(encoding="utf-8"))
        if self.gang.rank == 0:
            self.context.events.replay(memory["events"])
            self.context.events.progress(step, memory["total"], f"resumed from the checkpoint at step {step}")
        return Saved(step, folder, memory["numbers"], memory["stage"])

    def restore(self, saved: Saved, state: State) -> None:
        """Collective: load a checkpoint into a fresh state of the same model."""
        tensors = state.prepare_for(saved.numbers)
        saving = self.gang.saving
        dcp.load(tensors, storage_reader=TensorReader(saved.folder), process_group=saving, no_dist=saving is None)
        state.take(tensors)

    def boundary(self, state: State, plan: Plan, policy: CheckpointPolicy, *, stop: bool) -> None:
        """At every step boundary: agree with the others (one boundary late, nobody waits), save, commit, or stop.

        Raises Interrupted after a checkpoint when any rank was asked to stop.
        """
        due = self._due(state, policy)
        uploading = self.pending is not None and not self.pending[1].done()
        could_commit = self.voted
        self.voted = self.pending is not None
        agreed = self.gang.vote(stop=stop, save=due, uploading=uploading)
        single = self.gang.world_size == 1
        if self.pending is not None and not agreed.uploading and (could_commit or single):
            self._commit()
        if agreed.stop:
            self.save(state, plan)
            self.finish()
            step = plan.first_step + state.step
            raise Interrupted(
                f"stopped from outside after the checkpoint at step {step}", hint="start the job again: it goes on from there"
            )
        if agreed.save and self.pending is None:
            self.save(state, plan)

    def _due(self, state: State, policy: CheckpointPolicy) -> bool:
        if self.pending is not None:
            return False
        if policy.every_steps is not None and state.step % policy.every_steps == 0:
            return True
        return time.monotonic() - self.since >= policy.every_minutes * 60

    def save(self, state: State, plan: Plan) -> None:
        """Collective: copy the state (host sync) and begin to write it."""
        self.gang.settle()
        if self.pending is not None:
            self.finish()
        self.gang.average_buffers(state.model)
        self._require_finite(state, plan)
        step = plan.first_step + state.step
        folder = self.folder / f"step-{step}"
        if self.context.local_rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self.gang.barrier()
        if self.gang.rank == 0:
            memory: dict[str, Any] = {"numbers": state.numbers(), "stage": plan.stage_memory or {}, "events": self.context.events.unsent()}
            memory["total"] = plan.all_steps or plan.first_step + plan.order.steps
            (folder / MEMORY).write_text(json.dumps(memory), encoding="utf-8")
        written = dcp.async_save(
            state.tensors(),
            storage_writer=TensorWriter(folder, self.gang.rank),
            async_stager=BlockingAsyncStager(),  # a contiguous copy of each tensor, freed when it is written
            process_group=self.gang.saving,
            no_dist=self.gang.saving is None,
        )
        self.pending = step, self.pool.submit(self._upload, step, folder, written)
        self.voted = False
        self.since = time.monotonic()

    def _require_finite(self, state: State, plan: Plan) -> None:
        """Collective: losses become their mean; raises LossNotFinite, so that what is no good pushes out no checkpoint that is."""
        parameters = [local(parameter.detach()) for parameter in state.model.parameters()]
        sound = torch.stack(torch._foreach_norm(parameters)).isfinite().all()
        loss, ranks = self.gang.mean(torch.stack([state.loss, sound.to(state.loss)])).tolist()
        if not math.isfinite(loss):
            raise self.not_finite(state, plan, f"the loss became {loss}")
        if ranks < 1:
            raise self.not_finite(state, plan, "weights became NaN or infinite")
        state.loss.fill_(loss)

    def not_finite(self, state: State, plan: Plan, what: str) -> LossNotFinite:
        """Collective: the error, with the first step at fault and what is left. A checkpoint that is on its way is from before."""
        self.finish()
        steps = self.gang.gather(state.bad.view(1))
        step = int(steps[steps > 0].min()) if steps.any() else state.step
        kept = self.gang.from_rank_0(self.store.newest)
        return LossNotFinite(
            f"{what} in step {plan.first_step + step} of {plan.all_steps or plan.order.steps}"
            + (f"; the checkpoint of step {kept.step} is kept" if kept else ""),
            hint="lower learningRate, raise warmupFraction, set gradientClipNorm, or use precision FP32",
        )

    def _upload(self, step: int, folder: Path, written: "Future[Any]") -> None:
        try:
            written.result()
        except CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from error  # what happened, and not that something did
        rank = self.gang.rank
        self.store.upload(step, folder, [file_of(rank), *([MEMORY] if rank == 0 else [])])

    def _commit(self) -> None:
        """All parts are up. Rank 0 commits, in the background; an error of the upload or of an earlier commit is raised here."""
        assert self.pending is not None
        step, upload = self.pending
        self.pending = None
        upload.result()
        if self.context.local_rank == 0:
            shutil.rmtree(self.folder / f"step-{step}", ignore_errors=True)
        if self.committing is not None:
            self.committing.result()
        if self.gang.rank == 0:
            self.committing = self.pool.submit(self.store.commit, step)

    def finish(self) -> None:
        """Collective: wait until what is pending is committed, and forget the vote that is under way."""
        self.gang.settle()
        self.voted = False
        if self.pending is not None:
            self.pending[1].result()
            self.gang.barrier()
            self._commit()
        if self.committing is not None:
            self.committing.result()
            self.committing = None
        self.gang.barrier()
