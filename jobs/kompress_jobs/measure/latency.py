"""Latency, measured so that noise hits all candidates alike: one process, one thread setting, runs interleaved.

Figures are the median and the 99th percentile of single runs in milliseconds, and samples per second at the median.
"""

import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from kompress_jobs.samples import Inputs

EAGER_WARMUP = 5
EAGER_RUNS = 30
RESAMPLES = 500


def interleaved(runs: Mapping[str, Callable[[], object]], *, warmup: int, iterations: int) -> dict[str, list[float]]:
    """Seconds of each run, by name. Each round runs all of them once, in an order that alternates."""
    names = list(runs)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warmup + iterations):
        for name in names if turn % 2 == 0 else reversed(names):
            start = time.perf_counter()
            runs[name]()
            elapsed = time.perf_counter() - start
            if turn >= warmup:
                taken[name].append(elapsed)
    return taken


def summarize(seconds: list[float], batch_size: int) -> dict[str, float]:
    """`latencyP50Ms`, `latencyP99Ms`, `throughputPerSecond`."""
    p50, p99 = torch.tensor(seconds, dtype=torch.float64).quantile(torch.tensor([0.5, 0.99], dtype=torch.float64)).tolist()
    return {"latencyP50Ms": p50 * 1e3, "latencyP99Ms": p99 * 1e3, "throughputPerSecond": batch_size / p50}


def eager(model: nn.Module, sample: Inputs) -> dict[str, float]:
    """Latency of the PyTorch module as it is, for one sample and one thread: a hint while compressing, never a goal's figure."""
    synchronize = torch.cuda.synchronize if sample[0].device.type == "cuda" else _nothing
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    @torch.inference_mode()
    def run() -> None:
        model(*sample)
        synchronize()

    try:
        taken = interleaved({"eager": run}, warmup=EAGER_WARMUP, iterations=EAGER_RUNS)["eager"]
    finally:
        torch.set_num_threads(threads)
    found = summarize(taken, len(sample))
    return {name: found[name] for name in ("latencyP50Ms", "latencyP99Ms")}


def _nothing() -> None:
    return None


def speedup(baseline: list[float], candidate: list[float]) -> dict[str, float]:
    """How many times faster the candidate's median is, with a 95 % bootstrap interval over rounds (both lists, same rounds)."""
    times = torch.tensor([baseline, candidate], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    drawn = times[:, torch.randint(times.shape[1], (RESAMPLES, times.shape[1]), generator=generator)].median(dim=2).values
    low, high = (drawn[0] / drawn[1]).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    medians = times.median(dim=1).values
    return {"value": float(medians[0] / medians[1]), "low": low, "high": high}
