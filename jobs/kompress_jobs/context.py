"""What a stage is given and what it gives back; all else (process group, commit, tracking, termination) is the worker's and launcher's.

A stage is a module of `kompress_jobs.stages` with `run(context: StageContext) -> StageOutput`, called in every rank.
"""

import dataclasses
import fcntl
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kompress_api.contract import Artifact, StageInput
from kompress_api.errors import ArtifactMissing
from kompress_api.names import SOURCE
from kompress_jobs.events import Events

if TYPE_CHECKING:
    import torch

    from kompress_jobs.storage.artifacts import Manifest
    from kompress_jobs.storage.checkpoints import CheckpointStore

__all__ = ["Events", "StageContext", "StageOutput", "StopSignal"]


class StopSignal:
    """Whether someone asked this process to stop. All ranks must agree (a collective) before one of them acts on it."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """Take SIGTERM as the request; only the main thread may call this."""
        signal.signal(signal.SIGTERM, self.request)

    def request(self, *_: object) -> None:
        """Ask this process to checkpoint and end with `Interrupted`."""
        self.requested = True


@dataclasses.dataclass(frozen=True)
class StageContext:
    """Everything a stage may use."""

    input: StageInput
    """What the operator says."""
    rank: int
    """Global rank; 0 alone writes."""
    world_size: int
    """Processes of the gang; above 1 the default process group is there (`pod/worker.py`)."""
    local_rank: int
    """Rank within the pod."""
    device: "torch.device"
    """Where the model and the batches go."""
    scratch: Path
    """Local, writable, shared by the processes of one pod."""
    events: Events
    """What to tell people: metrics, params, progress, warnings, artifacts."""
    stop: StopSignal
    """SIGTERM has come: checkpoint and raise `Interrupted` at the next step boundary."""
    checkpoints: "CheckpointStore"
    """Checkpoints under this stage's key."""

    def input_of(self, role: str) -> Artifact:
        """The input that plays a role; raises ArtifactMissing when the stage has none."""
        found = next((entry for entry in self.input.inputs if entry.role == role), None)
        if found is None:
            known = ", ".join(entry.role for entry in self.input.inputs) or "none"
            raise ArtifactMissing(
                f"stage {self.input.name} has no input {role!r} (it has: {known})", hint="start the stage from one that makes a bundle"
            )
        return found

    def from_rank_0(self, look: Callable[[], Any]) -> Any:
        """Collective: the JSON-like value that `look` gives on rank 0, where alone it is called."""
        told = [look() if self.rank == 0 else None]
        if self.world_size == 1:
            return told[0]
        import torch.distributed as dist

        dist.broadcast_object_list(told, src=0)
        return told[0]

    def is_source(self, role: str) -> bool:
        """Whether the input is spec.model itself (`input.model`) and not a stage's artifact."""
        return self.input_of(role).stage == SOURCE

    def artifact(self, role: str) -> Path:
        """The folder of an input's files: downloaded once per pod, every byte checked against the commit.

        Raises ArtifactMissing (also for `source`, which has no artifact: build `input.model`) and ArtifactCorrupt.
        """
        return self._fetched(role)[0]

    def told(self, role: str) -> "Manifest":
        """What the stage that made an input told of it. Raises as `artifact`, which it calls."""
        from kompress_jobs.storage.artifacts import Manifest

        return Manifest.model_validate_json(self._fetched(role)[1].read_bytes())

    def _fetched(self, role: str) -> tuple[Path, Path]:
        """Folder and manifest of an input."""
        from kompress_jobs.storage import artifacts
        from kompress_jobs.storage.store import open_store

        entry = self.input_of(role)
        if entry.uri is None:
            raise ArtifactMissing(f"input {role!r} is {entry.stage}, which has no artifact", hint="build it from spec.model")
        folder = self.scratch / "inputs" / (entry.key or entry.digest).removeprefix("sha256:")[:32]
        folder.parent.mkdir(parents=True, exist_ok=True)
        done = folder.with_suffix(".done")
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                commit = artifacts.fetch(open_store(self.input.output, "output"), entry.uri, entry.digest, folder)
                done.write_text(commit.manifest.model_dump_json(by_alias=True))
        return folder, done


@dataclasses.dataclass
class StageOutput:
    """What a stage made; what ranks other than 0 return is not looked at."""

    folder: Path | None = None
    """Bundle or export that is to be committed, in scratch."""
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    """Flat finite figures by the names of kompress_api.goals (plain, `source.`, `baseline.`, `metric@format/target/batch`)."""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    """JSON for the manifest: intervals, per class, sensitivity, targets, ..."""
