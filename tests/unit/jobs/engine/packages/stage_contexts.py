"""Real contexts for stages, in a test's own process or in the processes of a gang: events in a file, checkpoints in a folder."""

from pathlib import Path
from typing import Any

import torch

from kompress_api.contract import Artifact, JobIdentity, StageInput
from kompress_api.stages.stage import Stage
from kompress_jobs.context import Events, StageContext, StageOutput, StopSignal
from kompress_jobs.storage.artifacts import Manifest
from kompress_jobs.storage.checkpoints import CheckpointStore
from kompress_jobs.storage.store import open_store

DIGITS = {"source": "builtin://digits"}
DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
CPU = torch.device("cpu")
TINY = {"source": "python://tiny_models:convolutional"}


def build_context(
    folder: Path,
    stage: dict[str, Any],
    *,
    inputs: dict[str, Path | None] | None = None,
    scratch: str = "scratch",
    rank: int = 0,
    world_size: int = 1,
    attempt: int = 1,
    device: torch.device = DEVICE,
    told: StageOutput | None = None,
    **fields: Any,
) -> StageContext:
    """`stage` is a stage as in a manifest; `inputs` maps a role to the folder of a bundle, or to None for spec.model; `told` is what
    the stages that made those bundles said of them.
    """
    parsed = Stage.model_validate({"name": "stage"} | stage)
    given = inputs if inputs is not None else {"model": None}
    artifacts = [
        Artifact(role=role, stage="source")
        if made is None
        else Artifact(role=role, stage=f"made{index}", uri=f"file://{made}", key=f"made{index}")
        for index, (role, made) in enumerate(given.items())
    ]
    content = {
        "job": JobIdentity(name="test", uid="uid"),
        "kind": parsed.kind,
        "name": parsed.name,
        "attempt": attempt,
        "task": "image-classification",
        "seed": 0,
        "evaluation": {},
        "model": TINY,
        "dataset": DIGITS,
        "output": {"uri": f"file://{folder}/output"},
        "tracking": {"uri": "sqlite:///none"},
        "stage": parsed,
        "inputs": artifacts,
    }
    stage_input = StageInput.model_validate(content | fields)
    place = folder / scratch
    (folder / "output").mkdir(exist_ok=True)
    (place / "inputs").mkdir(parents=True, exist_ok=True)
    for artifact, made in zip(artifacts, given.values(), strict=True):
        if made is not None:  # as if fetched from the store, every byte checked
            if not (place / "inputs" / artifact.key).exists():
                (place / "inputs" / artifact.key).symlink_to(made)
            said = {"metrics": told.metrics, "details": told.details} if told is not None else {}
            manifest = Manifest.model_validate({"key": artifact.key, "folder": "uid-1", "files": []} | said)
            (place / "inputs" / f"{artifact.key}.done").write_text(manifest.model_dump_json(by_alias=True))
    return StageContext(
        input=stage_input,
        rank=rank,
        world_size=world_size,
        local_rank=rank,
        device=device,
        scratch=place,
        events=Events(place, rank=rank),
        stop=StopSignal(),
        checkpoints=CheckpointStore(open_store(stage_input.output, "output"), "key", "uid", attempt),
    )
