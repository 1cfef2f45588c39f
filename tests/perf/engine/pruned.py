"""Half of the MACs pruned, then tuned: three seeds, beside a Torch-Pruning script and nvidia-modelopt, which start from the same
fine-tuned original and tune as long on the same batches in the same order."""

import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from perf.engine.originals import MINILM, RESNET, VIT, Original
from perf.engine.peers import answer
from perf.recorder import Row, Unable, compared_shares

SEEDS = 3
THREADS = 2
PEERS = (("Torch-Pruning script", "prune_torch_pruning", None), ("nvidia-modelopt", "prune_modelopt", "modelopt"))
ROUNDING = 1.02
"""MACs of a peer that counts them in another way."""


@dataclass(frozen=True)
class Tuned:
    """What one seed has come to."""

    ours: float
    samples: int
    """That were tested."""
    theirs: dict[str, float]
    """Accuracy by peer."""
    unable: dict[str, str]
    """Why not, by peer."""


def results(originals: tuple[Original, ...] = (RESNET, VIT, MINILM), seeds: int = SEEDS) -> Iterator[Row]:
    """A row for each original and peer. No time is taken, so that machines with many cores do some at once."""
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // THREADS)) as pool:
        begun = [(original, [pool.submit(tuned, original, seed) for seed in range(seeds)]) for original in originals]
        for original, coming in begun:
            yield from rows(original, [one.result() for one in coming])


def rows(original: Original, found: list[Tuned]) -> Iterator[Row]:
    """Mean accuracy over the seeds; the test samples count once a seed."""
    what = f"prune half of the MACs, then tune: {original.title}, {len(found)} seeds"
    mean = statistics.fmean(one.ours for one in found)
    for peer, _, _ in PEERS:
        unable = [one.unable[peer] for one in found if peer in one.unable]
        if unable:
            yield Unable(what, "right", mean, peer, unable[0])
        else:
            yield compared_shares(what, mean, peer, statistics.fmean(one.theirs[peer] for one in found), sum(one.samples for one in found))


def tuned(original: Original, seed: int) -> Tuned:
    """Prune and tune one original, by kompress and by each peer."""
    adapted = original.run("prune", seed, [])["adapt"]
    half = int(adapted.metrics["macs"]) // 2
    slim = original.run("prune", seed, stages(original, half))["slim"]
    done = Tuned(slim.metrics["accuracy"], slim.details["samples"], {}, {})
    for peer, script, environment in PEERS:
        found = answer(script, original.given(adapted, seed, original.recovery, macs=half), peer=environment, threads=THREADS)
        if "unable" in found or found["macs"] > ROUNDING * half:
            done.unable[peer] = found.get("unable") or f"leaves {found['macs']} MACs where {half} are asked for"
        else:
            done.theirs[peer] = found["accuracy"]
        print(f"  {original.title}, seed {seed}: {done.ours:.4f}, {peer}: {found}", flush=True)
    return done


def stages(original: Original, macs: int) -> list[dict[str, Any]]:
    """Convolutions lose channels. Transformers lose half of their heads first, so that their MLPs need not bear it all."""
    recovery = {"iterativeSteps": 2, "recovery": original.recovery}
    slim = {"name": "slim", "prune": {"constraints": {"macs": macs}, **recovery}}
    if not original.attends:
        return [slim]
    return [{"name": "heads", "prune": {"granularity": "Head", "pruningRatio": 0.5, "scope": "Local"}}, slim]
