"""Half of the MACs pruned, then tuned: three seeds, beside a Torch-Pruning script and nvidia-modelopt, which start from the same
fine-tuned original and tune as long on the same batches in the same order."""

import statistics
from collections.abc import Iterator
from typing import Any

from perf.engine.originals import MINILM, RESNET, VIT, Original
from perf.engine.peers import answer
from perf.recorder import Row, Unable, compared_shares

SEEDS = 3
PEERS = (("Torch-Pruning script", "prune_torch_pruning", None), ("nvidia-modelopt", "prune_modelopt", "modelopt"))
ROUNDING = 1.02
"""MACs of a peer that counts them in another way."""


def results(originals: tuple[Original, ...] = (RESNET, VIT, MINILM), seeds: int = SEEDS) -> Iterator[Row]:
    """A row for each original and peer."""
    for original in originals:
        yield from rows(original, seeds)


def rows(original: Original, seeds: int) -> Iterator[Row]:
    """Mean accuracy over the seeds; the test samples count once a seed."""
    ours: list[float] = []
    theirs: dict[str, list[float]] = {peer: [] for peer, _, _ in PEERS}
    unable: dict[str, str] = {}
    samples = 0
    for seed in range(seeds):
        adapted = original.run("prune", seed, [])["adapt"]
        half = int(adapted.metrics["macs"]) // 2
        slim = original.run("prune", seed, stages(original, half))["slim"]
        ours.append(slim.metrics["accuracy"])
        samples += slim.details["samples"]
        for peer, script, environment in PEERS:
            if peer in unable:
                continue
            found = answer(script, original.given(adapted, seed, original.recovery, macs=half), peer=environment)
            if "unable" in found or found["macs"] > ROUNDING * half:
                unable[peer] = found.get("unable") or f"leaves {found['macs']} MACs where {half} are asked for"
            else:
                theirs[peer].append(found["accuracy"])
            print(f"  {original.title}, seed {seed}: {ours[-1]:.4f}, {peer}: {found}", flush=True)
    what = f"prune half of the MACs, then tune: {original.title}, {seeds} seeds"
    mean = statistics.fmean(ours)
    for peer, reached in theirs.items():
        if peer in unable:
            yield Unable(what, "right", mean, peer, unable[peer])
        else:
            yield compared_shares(what, mean, peer, statistics.fmean(reached), samples)


def stages(original: Original, macs: int) -> list[dict[str, Any]]:
    """Convolutions lose channels. Transformers lose half of their heads first, so that their MLPs need not bear it all."""
    recovery = {"iterativeSteps": 2, "recovery": original.recovery}
    slim = {"name": "slim", "prune": {"constraints": {"macs": macs}, **recovery}}
    if not original.attends:
        return [slim]
    return [{"name": "heads", "prune": {"granularity": "Head", "pruningRatio": 0.5, "scope": "Local"}}, slim]
