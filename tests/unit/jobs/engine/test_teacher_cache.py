"""A teacher is asked once: whoever comes later, on whatever number of processes, finds its answers, whole and unchanged, or asks anew."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kompress_api.errors import Interrupted
from kompress_api.stages.distill import Distill
from kompress_jobs import registry
from kompress_jobs.bench import Bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import Loaded
from kompress_jobs.distillation import teacher_cache
from kompress_jobs.distillation.teacher_cache import Answers
from kompress_jobs.modules import layout
from kompress_jobs.training.evaluate import predict

MakeContext = Callable[..., StageContext]
RunStage = Callable[..., StageOutput]
SPEC: dict[str, Any] = {
    "teachers": [{"from": "source"}],
    "student": {"source": "python://tiny_models:convolutional", "arguments": {"width": 8}},
    "epochs": 1,
    "augmentation": "None",
}
SHARD = 500
"""Of the training samples of the digits: three shards."""


class Asked:
    """A teacher, and how many samples it was asked about."""

    def __init__(self, context: StageContext) -> None:
        self.bench, self.samples = Bench(context), 0
        self.teacher: Loaded = self.bench.take("teacher0")
        layout.channels_last(self.teacher.model, self.teacher.sample())  # as the stage does, which asks whether it works
        self.teacher.model.register_forward_hook(self._count)

    def _count(self, _: object, given: tuple[torch.Tensor, ...], __: object) -> None:
        self.samples += len(given[0])

    def answers(self) -> Answers:
        return teacher_cache.answers(self.bench, self.teacher, "teacher0")


@pytest.fixture
def ask(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """A stage that wants the answers, on a disk of its own; all share one output."""
    monkeypatch.setattr(teacher_cache, "SHARD", SHARD)
    made = 0

    def build(**fields: Any) -> Asked:
        nonlocal made
        made += 1
        return Asked(make_context({"distill": SPEC}, **({"inputs": {"teacher0": None}, "scratch": f"scratch{made}"} | fields)))

    return build


def manifests(folder: Path) -> list[Path]:
    return sorted((folder / "output" / "artifacts").glob("*/manifest.json"))


def test_answers_are_the_teacher_s_own_and_nobody_asks_twice(ask: Callable[..., Asked]) -> None:
    first = ask()
    found, total = first.answers(), len(first.bench.data.train)
    assert (first.samples, found.asked, len(found.shards)) == (total, 3, 3)
    own, _ = predict(
        first.teacher.model, first.bench.data.train, first.bench.task, first.teacher.description.preprocessing, first.bench.gang
    )
    mixed = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.of(mixed), own.half()[mixed]), "of any samples in any order, to the last bit"
    later = ask(attempt=2)
    assert torch.equal(later.answers().of(mixed), own.half()[mixed])
    assert later.samples == 0


def test_what_was_interrupted_goes_on_with_the_next_shard(ask: Callable[..., Asked], tmp_path: Path) -> None:
    """A restart must not pay for a whole pass of the teacher again."""
    stopped = ask()
    stopped.teacher.model.register_forward_hook(lambda *_: stopped.bench.context.stop.request())
    with pytest.raises(Interrupted):
        stopped.answers()
    assert (stopped.samples, len(manifests(tmp_path))) == (SHARD, 1)
    resumed = ask(attempt=2)
    assert resumed.answers().asked == 2
    assert resumed.samples == len(resumed.bench.data.train) - SHARD


def test_a_shard_without_its_commit_is_never_read(ask: Callable[..., Asked], tmp_path: Path) -> None:
    """What a killed writer left behind looks like the real thing, and may hold anything."""
    first = ask()
    expected = first.answers().of(torch.arange(SHARD))
    for path in manifests(tmp_path):
        path.unlink()
        torn = next(path.parent.glob("*/scores.safetensors"))
        torn.write_bytes(torn.read_bytes()[:-100] + bytes(100))
    second = ask(attempt=2)
    found = second.answers()
    assert found.asked == 3
    assert torch.equal(found.of(torch.arange(SHARD)), expected)


def test_one_changed_byte_and_the_teacher_is_asked_again(ask: Callable[..., Asked], tmp_path: Path) -> None:
    first = ask()
    everything = torch.arange(len(first.bench.data.train))
    expected = first.answers().of(everything)
    damaged = next((tmp_path / "output" / "artifacts").glob("*/*/scores.safetensors"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    again = ask(attempt=2)
    found = again.answers()
    assert found.asked == 1
    assert again.samples in (SHARD, len(everything) - 2 * SHARD)
    assert torch.equal(found.of(everything), expected)
    assert "asked for again" in (again.bench.context.scratch / "events.jsonl").read_text()
    assert ask(attempt=3).answers().asked == 0, "the damaged shard was replaced"


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"model": {"source": "python://tiny_models:convolutional", "arguments": {"width": 12}}},
        {"dataset": {"source": "builtin://digits", "imageSize": 16}},
        {"dataset": {"source": "builtin://digits", "splits": {"train": "another"}}},
    ],
    ids=["fresh weights of another seed", "another teacher", "other images", "another split"],
)
def test_answers_about_something_else_are_not_taken(fields: dict[str, Any], ask: Callable[..., Asked]) -> None:
    ask().answers()
    assert ask(**fields).answers().asked == 3


def test_another_student_and_other_losses_share_the_answers(make_context: MakeContext) -> None:
    """A sweep over students pays for its teacher once."""
    asked = []
    for index, change in enumerate(({}, {"alpha": 0.1, "temperature": 1, "epochs": 3}, {"student": {"source": "timm://resnet10t"}})):
        context = make_context({"distill": SPEC | change}, inputs={"teacher0": None}, scratch=f"scratch{index}")
        asked.append(Asked(context).answers().asked)
    assert asked == [1, 0, 0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"augmentation": "Light"}, "augmentation Light"),
        ({"mixup": 0.2}, "mixup"),
        ({"teacherCache": "Off"}, "teacherCache is Off"),
        ({}, ""),
    ],
)
def test_answers_are_kept_only_where_they_stay_true(change: dict[str, Any], why: str) -> None:
    task = registry.load("tasks", "image-classification", field="task")
    said = teacher_cache.why_online(Distill.model_validate(SPEC | change), task)
    assert why in said and bool(why) == bool(said)


def test_the_stage_says_whether_its_teacher_ran_along(run_stage: RunStage, tmp_path: Path) -> None:
    """And a student that is distilled again, with another temperature, does not ask."""
    first = run_stage({"distill": SPEC}, inputs={"teacher0": None})
    again = run_stage({"distill": SPEC | {"temperature": 2}}, inputs={"teacher0": None}, scratch="again")
    online = run_stage({"distill": SPEC | {"augmentation": "Light"}}, inputs={"teacher0": None}, scratch="online")
    assert [output.details.get("answers") for output in (first, again, online)] == [
        [{"shards": 1, "asked": 1}],
        [{"shards": 1, "asked": 0}],
        None,
    ]
    assert "Light" in online.details["online"] and not again.details["online"]
    assert len(manifests(tmp_path)) == 1


BY_TWO = """
import hashlib, json, os, sys
from pathlib import Path
import torch
import torch.distributed as dist
from stage_contexts import build_context
from kompress_jobs.bench import Bench
from kompress_jobs.modules import layout
from kompress_jobs.distillation import teacher_cache

folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
dist.init_process_group("gloo")
context = build_context(folder, {"distill": json.loads(sys.argv[2])}, inputs={"teacher0": None}, rank=rank, world_size=2)
bench, asked = Bench(context), 0
teacher = bench.take("teacher0")
layout.channels_last(teacher.model, teacher.sample())

def count(_, given, __):
    global asked
    asked += len(given[0])

teacher.model.register_forward_hook(count)
found = teacher_cache.answers(bench, teacher, "teacher0").of(torch.arange(len(bench.data.train)))
told = {"asked": asked, "digest": hashlib.sha256(found.numpy().tobytes()).hexdigest()}
(folder / f"told{rank}.json").write_text(json.dumps(told))
dist.destroy_process_group()
"""


def test_the_ranks_share_the_work_and_the_answers_and_one_process_finds_them(tmp_path: Path, make_context: MakeContext) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", BY_TWO, str(tmp_path), json.dumps(SPEC)]
    ranks = [subprocess.Popen(command, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
    try:
        assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    told = [json.loads((tmp_path / f"told{rank}.json").read_text()) for rank in range(2)]
    assert told[0]["digest"] == told[1]["digest"]
    alone = Asked(make_context({"distill": SPEC}, inputs={"teacher0": None}, scratch="alone", attempt=2))
    assert sum(entry["asked"] for entry in told) == len(alone.bench.data.train)
    assert alone.answers().asked == 0
