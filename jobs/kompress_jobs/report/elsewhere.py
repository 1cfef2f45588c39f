"""The final model and the baseline on `evaluation.datasets`, as their stages measured them (`evaluation/other_data.py`)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kompress_api.contract import StageInput
from kompress_api.dag import baseline_of
from kompress_api.errors import ArtifactMissing
from kompress_api.job import CompressionJobSpec
from kompress_api.names import SOURCE
from kompress_api.places import Dataset
from kompress_jobs.evaluation import measurements
from kompress_jobs.measure import paired
from kompress_jobs.measure.paired import Comparison
from kompress_jobs.measure.predictions import OWN, Predictions
from kompress_jobs.measure.predictions import SOURCE as OF_SOURCE
from kompress_jobs.planning import plan as plans
from kompress_jobs.storage.artifacts import Commit
from kompress_jobs.storage.store import Store


@dataclass(frozen=True)
class Elsewhere:
    """One data set."""

    source: str
    before: Mapping[str, Any] | None
    """Of the baseline: metrics, intervals, samples; None: not measured."""
    after: Mapping[str, Any] | None
    """Of the final stage."""
    comparison: Comparison | None

    def dump(self, most: int) -> dict[str, Any]:
        """JSON."""
        told = {"source": self.source, "baseline": self.before, "final": self.after}
        return told | {"comparison": self.comparison.dump(most) if self.comparison else None}


def collect(stage_input: StageInput, store: Store, spec: CompressionJobSpec, commits: Mapping[str, Commit]) -> list[Elsewhere]:
    """All data sets, in their order; `commits` by stage. Raises what the store raises, but for what is not there."""
    datasets, baseline, final = spec.evaluation.datasets, baseline_of(spec), spec.stages[-1].name
    if not datasets:
        return []
    try:
        planned = plans.read(store, stage_input)
    except ArtifactMissing:  # ArtifactCorrupt too
        planned = None
    found = []
    for index, dataset in enumerate(datasets):
        if planned is None or index >= len(planned.datasets):
            found.append(Elsewhere(dataset.source, None, None, None))
            continue
        digest = planned.datasets[index]
        told = [commits[baseline]] if baseline in commits else commits.values() if baseline == SOURCE else ()
        before = first(told, dataset, digest, OF_SOURCE if baseline == SOURCE else OWN)
        after = first([commits[final]] if final in commits else (), dataset, digest, OWN)
        comparison = paired.compare(before, after) if before is not None and after is not None else None
        figures = [None if said is None else said.about for said in (before, after)]
        found.append(Elsewhere(dataset.source, *figures, comparison))
    return found


def first(commits: Iterable[Commit], dataset: Dataset, digest: str, model: str) -> Predictions | None:
    """The measurement of the first commit that has it."""
    found = (measurements.read(commit, dataset, digest, model) for commit in commits)
    return next((said for said in found if said is not None), None)
