"""What a teacher answers, kept: each training sample is asked about once, by whichever stage needs it first.

An answer may be kept where a sample looks the same in every epoch; where augmentation draws anew, an old answer would be about a
sample that the student does not see, and the teacher is asked at every step. Answers are float16, in shards of SHARD samples, each an
artifact of the output under a key of all that decides it: teacher, data, preparation, code. So students, jobs and attempts share them;
what was interrupted goes on with the next shard; half a shard is never read; and every byte is checked on its way back. On the local
disk they are mapped and not loaded: the ranks of a pod share them.

Z. Shen, E. Xing, A Fast Knowledge Distillation Framework for Visual Recognition, 2022, https://arxiv.org/abs/2112.01528.
"""

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from kompress_api.canonical import digest
from kompress_api.errors import ArtifactCorrupt, ArtifactMissing
from kompress_api.stages.distill import Distill
from kompress_jobs.bench import Bench
from kompress_jobs.context import StageContext
from kompress_jobs.description import Loaded
from kompress_jobs.planning import code_version, keys, plan
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.artifacts import ManifestInput
from kompress_jobs.storage.store import Store, open_store
from kompress_jobs.training.evaluate import predict
from kompress_jobs.training.mixing import mixes

log = logging.getLogger(__name__)
SHARD = 8192
"""Samples: a stop waits for one shard at most."""
FILE = "scores.safetensors"
LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Answers:
    """A teacher's scores of every sample of train."""

    shards: Sequence[torch.Tensor]
    """Of `size` samples each, the last of what is left; (samples, classes) or (samples, frames, tokens), float16, on the disk."""
    size: int
    asked: int
    """Shards that this stage had to ask for."""

    def of(self, indices: torch.Tensor) -> torch.Tensor:
        """Those of some samples, (samples, ...), by their positions in the split."""
        found = torch.empty(len(indices), *self.shards[0].shape[1:], dtype=torch.float16)
        which = indices // self.size
        for number in which.unique().tolist():
            rows = which == number
            found[rows] = self.shards[number][indices[rows] - number * self.size]
        return found


def why_online(spec: Distill, task: ModuleType) -> str:
    """Why the teachers must be asked at every step; empty where their answers can be kept."""
    if spec.teacher_cache == "Off":
        return "teacherCache is Off"
    if task.DRAWS[spec.augmentation]:
        return f"augmentation {spec.augmentation} changes every sample in every epoch"
    if mixes(spec):
        return "mixup and cutmix make other samples in every epoch"
    return ""


def answers(bench: Bench, teacher: Loaded, role: str) -> Answers:
    """Collective: the teacher's answers about all of train, fetched as far as anybody has asked, asked for else. A stop point."""
    context, gang = bench.context, bench.gang
    store = open_store(context.input.output, "output")
    decided = gang.from_rank_0(lambda: decides(context, store, role, teacher))
    shards, asked = [], 0
    parts = torch.arange(len(bench.data.train)).split(SHARD)
    for number, rows in enumerate(parts):
        key = digest(decided | {"rows": [int(rows[0]), len(rows)]}).removeprefix("sha256:")
        folder = context.scratch / "answers" / key
        if not fetched(bench, store, key, folder):
            bench.stop_point()
            context.events.progress(number, len(parts), f"{role} is asked about every sample")
            keep(bench, store, key, scores(bench, teacher, rows), decided, role)
            asked += 1
            if not fetched(bench, store, key, folder):
                raise ArtifactCorrupt(
                    f"the answers of {role} that were written to {store.uri} a moment ago are gone or changed",
                    hint="find out who removes or changes files there",
                )
        shards.append(load_file(folder / FILE)["scores"])
    return Answers(shards, SHARD, asked)


def decides(context: StageContext, store: Store, role: str, teacher: Loaded) -> dict[str, Any]:
    """All that a teacher's answers depend on, as JSON."""
    stage, entry = context.input, context.input_of(role)
    planned = plan.read(store, stage)
    made = {"digest": entry.digest, "key": entry.key}
    if context.is_source(role):
        made = {"source": plan.source_key(stage.model, planned), "seed": str(stage.seed)}
    prepared = teacher.description.preprocessing
    return {
        "kind": "teacherScores",
        "task": stage.task,
        "teacher": made,
        "preprocessing": prepared.dump(),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in prepared.files().items()},
        "dataset": stage.dataset.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=keys.ACCESS),
        "fingerprint": plan.data_digest(stage, planned),
        "code": code_version.code_of(stage.model, stage.dataset),
    }


def fetched(bench: Bench, store: Store, key: str, folder: Path) -> bool:
    """Collective: whether a shard lies whole on the disk of every pod now."""
    mine = bench.context.local_rank != 0 or _fetch(store, key, folder)
    return bool(bench.gang.gather(torch.tensor([mine])).all())


def _fetch(store: Store, key: str, folder: Path) -> bool:
    done = folder.with_suffix(".done")  # two teachers may be one, and what is mapped must not be written again
    if done.exists():
        return True
    try:
        found = artifacts.find(store, key)
        if found is None:
            return False
        artifacts.fetch(store, found.uri, found.digest, folder)
    except ArtifactMissing as problem:  # ArtifactCorrupt too
        log.warning("a teacher's answers can't be used: %s", problem)
        return False
    done.touch()
    return True


def scores(bench: Bench, teacher: Loaded, rows: torch.Tensor) -> torch.Tensor:
    """Collective: ask; (samples, ...), float16. Samples that can't be read have zeros, which nobody will look up."""
    described = teacher.description
    given, positions = predict(teacher.model, bench.data.train, bench.task, described.preprocessing, bench.gang, rows)
    found = torch.zeros(len(rows), *given.shape[1:], dtype=torch.float16)
    found[positions - rows[0]] = given.clamp(-LARGEST, LARGEST).half()
    return found


def keep(bench: Bench, store: Store, key: str, shard: torch.Tensor, decided: dict[str, Any], role: str) -> None:
    """Commit a shard (rank 0); the first writer wins, and one that was damaged is replaced."""
    if bench.gang.rank:
        return
    stage, entry = bench.input, bench.context.input_of(role)
    folder = bench.context.scratch / "answers" / f"{key}-asked"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"scores": shard}, folder / FILE)
    inputs = [ManifestInput(role=role, stage=entry.stage, key=entry.key, digest=entry.digest)]
    commit = artifacts.commit(store, key, stage.job.uid, stage.attempt, folder, {}, decided, inputs)
    if commit.replaced:
        bench.context.events.warning(f"a teacher's answers were asked for again: {commit.replaced}")
    shutil.rmtree(folder)
