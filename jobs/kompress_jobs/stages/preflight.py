"""preflight: check the whole plan before anything expensive is asked for, and write down what was found (`planning/plan.py`).

Cheap questions come first. Every method is rehearsed on the first samples (`rehearsal/`); data are listed and
fingerprinted, not read; nothing is trained, so nothing is said of accuracy. Storage gets 30 s here instead of 10 minutes.
The launcher looks for MLflow meanwhile, and opens the job's run when all else has passed (`tracking/parent_run.py`).
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from kompress_api.contract import StageInput, StageSuccess
from kompress_api.dag import inputs_of
from kompress_api.errors import ArtifactCorrupt
from kompress_api.job import CompressionJobSpec
from kompress_api.names import SOURCE
from kompress_jobs import data, registry, tasks
from kompress_jobs.evaluation.measurements import fingerprints
from kompress_jobs.events import Events
from kompress_jobs.planning import keys
from kompress_jobs.planning.code_version import code_version
from kompress_jobs.planning.fingerprint import Fingerprint, fingerprint, resolve
from kompress_jobs.planning.hardware import hardware_of
from kompress_jobs.planning.plan import Plan, PlannedData, PlannedStage, plan_key
from kompress_jobs.rehearsal import memory
from kompress_jobs.rehearsal.rehearse import Forecast, Sizes, rehearse
from kompress_jobs.samples.splits import Data
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.objects import PREFLIGHT_PATIENCE
from kompress_jobs.storage.store import Store, open_store, prove_conditional

FIRST_SAMPLES = 64
"""Of each split, that are read."""
STEPS = 6
KEY_DIGITS = 16


def run(stage: StageInput, scratch: Path, events: Events) -> StageSuccess:
    """Check everything; the result names the plan. Raises the first problem, by field path."""
    spec = CompressionJobSpec.model_validate(stage.spec)
    events.progress(0, STEPS, "methods")
    refuse_unknown(spec)
    events.progress(1, STEPS, "output")
    store = open_store(stage.output, "output", patience=PREFLIGHT_PATIENCE)
    prove_conditional(store)
    events.progress(2, STEPS, "data")
    found = fingerprint(stage.dataset, patience=PREFLIGHT_PATIENCE)
    transcripts = tasks.transcripts(registry.load("tasks", spec.task, field="spec.task"))
    samples = data.load(stage.dataset, scratch, first=FIRST_SAMPLES, transcripts=transcripts)
    events.progress(3, STEPS, "every stage once, on a few samples")
    held = memory.held_by(stage.dataset, samples, files=found.files, size=found.size)
    forecasts = rehearse(spec, samples, scratch, held)
    events.progress(4, STEPS, "keys")
    planned = plan(stage, spec, found, samples, forecasts, store)
    events.progress(5, STEPS, "plan")
    content = (json.dumps(planned.dump(), indent=1, sort_keys=True) + "\n").encode()
    key = plan_key(stage.job.uid)
    store.write(key, content)
    return StageSuccess(
        plan=f"{store.uri}/{key}",
        plan_digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        keys={entry.name: entry.key[:KEY_DIGITS] for entry in planned.stages},
        hits={entry.name: entry.hit for entry in planned.stages},
        metrics=planned.source,
    )


def refuse_unknown(spec: CompressionJobSpec) -> None:
    """Raise UnknownMethod for the first stage kind that this version does not have."""
    registry.load("tasks", spec.task, field="spec.task")
    for index, stage in enumerate(spec.stages):
        registry.load("stages", stage.kind, field=f"spec.stages[{index}].{stage.kind}")


def plan(
    stage: StageInput, spec: CompressionJobSpec, found: Fingerprint, samples: Data, forecasts: Mapping[str, Forecast], store: Store
) -> Plan:
    """Keys of all stages, and which of them have a commit."""
    source = keys.source_key(spec.model, resolve(spec.model, patience=PREFLIGHT_PATIENCE))
    students = {
        entry.name: keys.source_key(entry.distill.student, resolve(entry.distill.student, role="student", patience=PREFLIGHT_PATIENCE))
        for entry in spec.stages
        if entry.distill is not None and entry.distill.student is not None
    }
    forecast_keys = stage_keys(spec, found.digest, source, students)
    return Plan(
        job=stage.job,
        data=PlannedData(
            digest=found.digest,
            means=found.means,
            files=found.files,
            size=found.size,
            labels=samples.labels,
            image_size=samples.image_size,
            channels=samples.channels,
            sample_rate=samples.sample_rate,
            clip_samples=samples.clip_samples,
        ),
        datasets=fingerprints(spec, patience=PREFLIGHT_PATIENCE),
        source_key=source,
        students=students,
        source=figures_of(forecasts[SOURCE]),
        stages=[
            PlannedStage(
                name=entry.name,
                kind=entry.kind,
                key=forecast_keys[entry.name],
                hit=committed(store, forecast_keys[entry.name]),
                **figures(forecasts[entry.name]),
            )
            for entry in spec.stages
        ],
    )


def stage_keys(spec: CompressionJobSpec, data_digest: str, source: str, students: Mapping[str, str]) -> dict[str, str]:
    """Every stage's key. An export's holds the processor that it measures on: this pod's stands in for it. It has no GPU, so that an
    export for GPUs is never forecast as done; its own pod finds that out."""
    code = {entry.name: code_version(spec, entry) for entry in spec.stages}
    found = keys.plan_keys(spec, data_digest, source=source, code=code, students=students)
    basis = keys.Basis.of(spec, data_digest)
    for entry in spec.stages:
        if entry.export is not None:
            inputs = {role.role: found[role.stage] for role in inputs_of(spec, entry)}
            found[entry.name] = keys.stage_key(basis, entry, inputs=inputs, code=code[entry.name], hardware=hardware_of(entry))
    return found


def committed(store: Store, key: str) -> bool:
    """Whether a commit stands under the key; the stage itself verifies it."""
    try:
        return artifacts.find(store, key) is not None
    except ArtifactCorrupt:
        return False


def figures(forecast: Forecast) -> dict[str, dict[str, float]]:
    """A stage's, with the bounds of those that can't be told exactly."""
    found = {"figures": figures_of(forecast), "low": figures_of(forecast.low), "high": figures_of(forecast.high)}
    if forecast.exact:
        found |= {"low": {}, "high": {}}
    for name, span in (("workerMemoryBytes", forecast.worker), ("artifactBytes", forecast.artifact)):
        for side, value in (("figures", span.likely), ("low", span.low), ("high", span.high)):
            found[side][name] = float(value)
    return found


def figures_of(sizes: Sizes) -> dict[str, float]:
    """Under the names that figures have everywhere."""
    return {"parameters": float(sizes.parameters), "macs": float(sizes.macs), "modelSizeBytes": float(sizes.model_size_bytes)}
