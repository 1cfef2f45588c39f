"""The smallest model within an accuracy budget: how much can go is found by bisection, each trial a pruned and briefly trained copy.

Accuracy is that of the validation split; the test split is not looked at. What a trial found is noted beside the checkpoints, and a
trial that was stopped in its training goes on there, so a search that is interrupted loses nothing. The trials that no other beats in
both size and accuracy are the Pareto front.
"""

import copy
import json
from dataclasses import asdict, dataclass
from typing import Any

from kompress_api.errors import MethodRefused
from kompress_api.stages.prune import Prune, Search
from kompress_jobs.bench import Bench
from kompress_jobs.description import Loaded
from kompress_jobs.measure import size
from kompress_jobs.pruning.recovery import Methods, Steps, recovery_steps
from kompress_jobs.samples import place
from kompress_jobs.training.checkpoint import Saved

NOTE = "search"
RESOLUTION = 1 / 256
"""Ratios closer than this are not told apart."""


@dataclass(frozen=True)
class Trial:
    """A model that was tried; ratio 0 is the one that the stage began with."""

    ratio: float
    accuracy: float
    """On the validation split, as the task says it."""
    parameters: int
    macs: int


def trial_epochs(spec: Prune) -> int:
    """Epochs of a trial's recovery: a quarter of the stage's, one at least."""
    return max(1, spec.recovery.epochs // 4) if spec.recovery else 0


def trial_steps(bench: Bench, spec: Prune) -> int:
    """Optimizer steps of all trials, as many as there may be."""
    assert spec.search is not None
    return spec.search.max_trials * recovery_steps(bench, spec, trial_epochs(spec))


def next_ratio(trials: list[Trial], search: Search, most: float) -> float | None:
    """The ratio to try next; None when the search is over. The first trial is the unpruned model."""
    kept, failed = bracket(trials, search, most)
    done = len(trials) > search.max_trials or failed - kept <= RESOLUTION
    return None if done else (kept + failed) / 2


def bracket(trials: list[Trial], search: Search, most: float) -> tuple[float, float]:
    """The largest ratio that kept the accuracy, and the smallest that did not, or is too much."""
    floor = trials[0].accuracy - search.max_degradation
    failed = min([trial.ratio for trial in trials if trial.accuracy < floor], default=most)
    kept = max([trial.ratio for trial in trials if trial.accuracy >= floor and trial.ratio < failed], default=0.0)
    return kept, failed


def front(trials: list[Trial]) -> list[Trial]:
    """Those that no other trial beats or equals in parameters, MACs and accuracy, the smallest first."""

    def beats(one: Trial, other: Trial) -> bool:
        better = (one.parameters <= other.parameters, one.macs <= other.macs, one.accuracy >= other.accuracy)
        same = (one.parameters, one.macs, one.accuracy) == (other.parameters, other.macs, other.accuracy)
        return all(better) and (not same or one.ratio < other.ratio)

    return sorted((trial for trial in trials if not any(beats(other, trial) for other in trials)), key=lambda trial: trial.parameters)


def run(bench: Bench, found: Loaded, spec: Prune, methods: Methods, saved: Saved | None) -> tuple[float, dict[str, Any]]:
    """Collective: the largest ratio that keeps the accuracy, and what the search found, for the manifest.

    Raises MethodRefused when no trial kept it.
    """
    search = spec.search
    assert search is not None
    noted = bench.gang.from_rank_0(lambda: bench.context.checkpoints.noted(NOTE))
    trials = [Trial(**entry) for entry in max(noted or [], saved.stage["trials"] if saved else [], key=len)]
    if not trials:
        trials = [measured(bench, found, 0.0)]
        tell(bench, trials)
    length = recovery_steps(bench, spec, trial_epochs(spec))
    while (ratio := next_ratio(trials, search, spec.max_pruning_ratio)) is not None:
        bench.stop_point()
        number = len(trials) - 1
        resumed = saved if saved and saved.stage.get("trial") == number else None
        other = Loaded(copy.deepcopy(found.model), found.description)
        steps = Steps(
            bench,
            spec,
            methods,
            [trial_epochs(spec)],
            lambda *_, ratio=ratio: ratio,
            first_step=number * length,
            all_steps=trial_steps(bench, spec) + recovery_steps(bench, spec, spec.recovery.epochs if spec.recovery else 0),
            memory={"trial": number, "trials": [asdict(trial) for trial in trials]},
        )
        steps.run(other, resumed)
        trials.append(measured(bench, other, ratio))
        tell(bench, trials)
    chosen, _ = bracket(trials, search, spec.max_pruning_ratio)
    if not chosen:
        raise MethodRefused(
            f"none of {len(trials) - 1} pruned models kept the validation accuracy of {trials[0].accuracy:.4f} less "
            f"{search.max_degradation:g}: the best has {max(trial.accuracy for trial in trials[1:]):.4f}",
            hint="raise maxDegradation, maxTrials or recovery.epochs, or leave this stage out",
            field=bench.field("search", "maxDegradation"),
        )
    told = {
        "baseline": trials[0].accuracy,
        "least": trials[0].accuracy - search.max_degradation,
        "ratio": chosen,
        "trials": [asdict(trial) for trial in trials],
        "front": [asdict(trial) for trial in front(trials)],
    }
    if bench.gang.rank == 0:
        path = bench.context.scratch / "search.json"
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        bench.context.events.artifact(path, bench.input.name)
    return chosen, told


def measured(bench: Bench, found: Loaded, ratio: float) -> Trial:
    """Collective: size and validation accuracy."""
    sizes = size.sizes(found.model, place(found.description.preprocessing.sample(1), bench.context.device))
    return Trial(ratio, bench.accuracy(found), int(sizes["parameters"]), int(sizes["macs"]))


def tell(bench: Bench, trials: list[Trial]) -> None:
    """Note all trials, and chart the last one."""
    if bench.gang.rank == 0:
        bench.context.checkpoints.note(NOTE, [asdict(trial) for trial in trials])
    bench.context.events.metrics({f"search/{name}": value for name, value in asdict(trials[-1]).items()}, len(trials) - 1)
