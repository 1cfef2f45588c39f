"""plan.json: what the preflight found out, once, so that no stage has to look again; and the key that a stage finds for itself.

The preflight's keys are a forecast. A stage computes its own from the plan's fingerprints, the keys of the inputs that it
was given, and the code of its own image: another image, or an input that was made anew, is another key.
"""

import hashlib
from typing import Annotated

from pydantic import Field, ValidationError

from kompress_api.base import Model
from kompress_api.contract import JobIdentity, StageInput
from kompress_api.errors import ArtifactCorrupt
from kompress_api.names import SOURCE
from kompress_api.places import PLACE_SCHEMES, ModelSource
from kompress_jobs.planning import keys
from kompress_jobs.planning.code_version import code_version
from kompress_jobs.planning.fingerprint import fingerprint, resolve
from kompress_jobs.planning.hardware import hardware_of
from kompress_jobs.storage.store import Store

NAME = "plan.json"


class PlannedData(Model):
    """The data set as it is now."""

    digest: str
    """Fingerprint."""
    means: str = ""
    """What was looked at for it: listing, content, mtime, library or sources."""
    files: int = 0
    """How many."""
    size: int = 0
    """Bytes in all."""
    labels: list[str] = []
    """Class names."""
    image_size: int = 0
    """Of images: side in pixels."""
    channels: int = 0
    """Of images: 1 or 3."""
    sample_rate: int = 0
    """Of sound: samples a second."""
    clip_samples: int = 0
    """Of sound: samples that every clip is cut or filled up to."""


class PlannedStage(Model):
    """What would run."""

    name: str
    """Stage."""
    kind: str
    """Its kind."""
    key: str
    """Stage key in full, as a forecast."""
    hit: bool
    """A commit stands under it."""
    figures: dict[str, float] = {}
    """What can be told before it runs: of its model parameters, macs, modelSizeBytes (of the weights in float32); of the stage
    workerMemoryBytes (peak of one process, or of its GPU) and artifactBytes (its files)."""
    low: dict[str, float] = {}
    """Of figures that are not exact (the weights decide: global pruning, a search; memory): what they won't fall below."""
    high: dict[str, float] = {}
    """And what they won't exceed."""


class Plan(Model):
    """The content of plan.json."""

    model_config = {**Model.model_config, "extra": "ignore"}

    job: JobIdentity
    """Whose."""
    data: PlannedData
    """spec.dataset."""
    datasets: list[str] = []
    """Fingerprints of spec.evaluation.datasets, in their order."""
    source_key: str
    """Key of spec.model."""
    students: dict[str, str] = {}
    """Stage -> key of its new student."""
    source: dict[str, float] = {}
    """Figures of spec.model: parameters, macs, modelSizeBytes."""
    stages: Annotated[list[PlannedStage], Field(max_length=64)] = []
    """In the order of the spec."""


def plan_key(uid: str) -> str:
    """Where the plan of a job lies, below its output."""
    return f"jobs/{uid}/{NAME}"


def read(store: Store, stage: StageInput) -> Plan | None:
    """The plan that the stage was told of; None where it was told of none. Raises ArtifactMissing, ArtifactCorrupt."""
    if stage.plan is None:
        return None
    content = store.read(stage.plan.removeprefix(f"{store.uri}/"))
    found = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if stage.plan_digest and stage.plan_digest != found:
        raise ArtifactCorrupt(
            f"{stage.plan} has changed: {stage.plan_digest} was expected, {found} is there", hint="run the job again under another name"
        )
    try:
        return Plan.model_validate_json(content)
    except ValidationError as error:
        raise ArtifactCorrupt(
            f"{stage.plan} is no plan: {error.errors()[0]['msg']}", hint="run the job again under another name"
        ) from error


def data_digest(stage_input: StageInput, plan: Plan | None) -> str:
    """Fingerprint of spec.dataset."""
    return plan.data.digest if plan else fingerprint(stage_input.dataset).digest


def own_key(stage_input: StageInput, plan: Plan | None) -> str:
    """The key of this stage, in this image, from these inputs. Without a plan the data and models are looked at anew."""
    stage = stage_input.stage
    assert stage is not None
    student = stage.distill.student if stage.distill else None
    basis = keys.Basis.of(stage_input, data_digest(stage_input, plan))
    planned = plan.students.get(stage.name, "") if plan else ""
    return keys.stage_key(
        basis,
        stage,
        inputs={entry.role: source_key(stage_input.model, plan) if entry.stage == SOURCE else entry.key for entry in stage_input.inputs},
        code=code_version(stage_input, stage),
        student=planned or (keys.source_key(student, resolve(student, role="student")) if student else ""),
        hardware=hardware_of(stage),
    )


def refuse_moved(stage_input: StageInput, plan: Plan | None) -> None:
    """Raise ArtifactCorrupt where a place that the stage is about to load from does not hold what the preflight saw there (an alias was
    moved, a file written anew): the result would be kept under the key of the other one. Libraries are the image's business."""
    if plan is None:
        return
    student = stage_input.stage.distill.student if stage_input.stage and stage_input.stage.distill else None
    seen = [(stage_input.model, "model", plan.source_key)] if any(entry.stage == SOURCE for entry in stage_input.inputs) else []
    seen += [(student, "student", plan.students.get(stage_input.name, ""))] if student else []
    for model, role, key in seen:
        if model.source.partition("://")[0] in PLACE_SCHEMES and keys.source_key(model, resolve(model, role=role)) != key:
            raise ArtifactCorrupt(
                f"what {model.source} stands for has changed since the preflight",
                hint="run the job again under another name, which takes what is there now",
                field=f"spec.{role}",
            )


def source_key(model: ModelSource, plan: Plan | None) -> str:
    """Key of spec.model."""
    return plan.source_key if plan else keys.source_key(model, resolve(model))
