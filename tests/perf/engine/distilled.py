"""A student that learns from ResNet-18 on digits, beside torchdistill: the same teacher, fresh student, loss and recipe. Nothing is
augmented, so that kompress asks the teacher once a sample; torchdistill has no cache any more."""

import statistics
from collections.abc import Iterator
from typing import Any

from perf.engine.originals import RESNET
from perf.engine.peers import answer
from perf.recorder import PAIRS, Goal, Result, Row, compared_shares, pairs

SEEDS = 3
PEER = "torchdistill"
STUDENT = {"source": "timm://resnet10t", "arguments": {"channels": [48, 96, 192, 384], "stem_width": 16}}
LESSON = {"temperature": 4.0, "alpha": 0.7}
CACHED = Goal(1.5, "at_least")


def results(seeds: int = SEEDS, epochs: int = 12, count: int = PAIRS) -> Iterator[Row]:
    """Accuracy over the seeds; then samples a second, one process with one thread."""
    settings = {"epochs": epochs, "batchSize": 64, "learningRate": 2e-3, "augmentation": "None"}
    student = {"name": "student", "distill": {"teachers": [{"from": "adapt"}], "student": STUDENT, **settings, **LESSON}}
    ours: list[float] = []
    theirs: list[float] = []
    samples, asked = 0, {}
    for seed in range(seeds):
        made = RESNET.run("distill", seed, [student])
        asked = RESNET.given(made["adapt"], seed, settings, student=STUDENT, distill=LESSON)
        found = answer("distill_torchdistill", asked, peer="torchdistill")
        ours.append(made["student"].metrics["accuracy"])
        samples += made["student"].details["samples"]
        theirs.append(found["accuracy"])
        print(f"  seed {seed}: {ours[-1]:.4f}, {PEER}: {theirs[-1]:.4f}", flush=True)
    what = f"distill {RESNET.title} into ResNet-10, {seeds} seeds"
    yield compared_shares(what, statistics.fmean(ours), PEER, statistics.fmean(theirs), samples)
    what = "distill with the teacher cache (and what it takes to fill it), 1 thread"
    yield Result(what, "samples/s", PEER, CACHED, pairs(*(rate(asked, *which) for which in SIDES), count=count))


SIDES = (("distill_kompress", None), ("distill_torchdistill", "torchdistill"))


def rate(asked: dict[str, Any], script: str, peer: str | None) -> Any:
    """Measures one side."""
    return lambda: answer(script, asked, peer=peer, threads=1)["rate"]
