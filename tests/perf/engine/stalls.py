"""What the loop waits for, and what memory a worker takes, beside the same training by hand: two processes, ResNet-18."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perf.engine.images import write_digits
from perf.engine.peers import figures, script
from perf.recorder import PAIRS, Goal, Level, Result, Row, interleaved

BEARABLE = Goal(2.0, "at_most", "%")
CHECKPOINT_SECONDS = 15.0
"""Forty times as often as by default, so that a short run has some."""
MEMORY = Goal(1.1, "at_most")


def results(pairs: int = PAIRS, epochs: int = 12, images: int = 80) -> Iterator[Row]:
    """Data in memory and checkpoints in one run, data on disk in another; `images` of each class."""
    every = {"settings": {"checkpoint": {"everyMinutes": CHECKPOINT_SECONDS / 60}}}
    found = watched(every, ["--checkpoint", "{}", "--every", str(CHECKPOINT_SECONDS)], epochs, pairs)
    yield share("training waits for data in memory (digits, 32x32)", "reading", "DataLoader", found)
    yield share(f"training waits for checkpoints, one each {CHECKPOINT_SECONDS:g} s", "saving", "dcp.async_save", found)
    yield peak("peak memory above imports, with checkpoints", "dcp.async_save", found)
    with tempfile.TemporaryDirectory() as folder:
        root = write_digits(Path(folder), side=224, each=images)
        dataset = {"source": f"file://{root}", "format": "imagefolder", "imageSize": 64}
        found = watched({"onDisk": True, "dataset": dataset}, ["--images", str(root / "train"), "--size", "64"], 2, pairs)
    yield share("training waits for data on disk (JPEG, 224x224 to 64x64)", "reading", "ImageFolder, DataLoader with a worker", found)
    yield peak("peak memory above imports, data on disk", "ImageFolder, DataLoader with a worker", found)


Pair = tuple[dict[str, float], dict[str, float]]


def watched(asked: dict[str, Any], bare: list[str], epochs: int, count: int) -> list[Pair]:
    """What both loops say of themselves; `{}` among the bare one's arguments is a new folder."""

    def ours() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            return figures(script("loop_kompress", folder, epochs, json.dumps(asked), processes=2))

    def peers() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            return figures(script("loop_bare", epochs, *(argument.format(folder) for argument in bare), processes=2))

    return list(interleaved(ours, peers, count))


def share(what: str, of: str, peer: str, found: list[Pair]) -> Level:
    """Time waited in percent of the loop's."""
    samples = tuple((100 * ours[of] / ours["seconds"], 100 * peers[of] / peers["seconds"]) for ours, peers in found)
    return Level(what, "% of the loop", f"by hand: {peer}", BEARABLE, samples)


def peak(what: str, peer: str, found: list[Pair]) -> Result:
    """Rank 0's peak of resident memory."""
    return Result(
        what, "MiB", f"by hand: {peer}", MEMORY, tuple((ours["memory"] / 2**20, peers["memory"] / 2**20) for ours, peers in found)
    )
