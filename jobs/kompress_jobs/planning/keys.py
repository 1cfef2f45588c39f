"""Stage keys: one name for one piece of work, so that nobody does it twice. Pure; what a key rests on is found elsewhere
(`fingerprint.py`, `code_version.py`).

A key is the SHA-256 of the canonical JSON of all that decides a stage's result, its inputs' keys among it: a Merkle chain, so
a change anywhere above changes every key below. It leaves out what does not decide: names, runtime, world size, tracking,
goals, endpoints and credentials, `evaluation.datasets`.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from kompress_api.canonical import canonical_json
from kompress_api.contract import StageInput
from kompress_api.dag import inputs_of
from kompress_api.job import CompressionJobSpec
from kompress_api.names import SOURCE
from kompress_api.places import Dataset, ModelSource
from kompress_api.stages.stage import Stage

ACCESS = {"endpoint", "region", "credentials_secret"}
"""How a place is reached does not change what lies there."""
NAMES: dict[str, Any] = {"teachers": {"__all__": {"from_"}}, "models": {"__all__": {"from_"}}, "base": True, "student": True}
"""Fields of a stage kind for which keys stand in: other stages by their keys in `inputs`, the student by its own."""


@dataclasses.dataclass(frozen=True)
class Basis:
    """What all keys of a job rest on, the source aside."""

    task: str
    seed: int
    evaluation_seeds: int
    dataset: Dataset
    fingerprint: str
    """Of the data (`fingerprint.Fingerprint.digest`)."""

    @classmethod
    def of(cls, job: CompressionJobSpec | StageInput, fingerprint: str) -> "Basis":
        """The same from the whole spec, as the preflight has it, and from what a stage is told."""
        return cls(job.task, job.seed, job.evaluation.seeds, job.dataset, fingerprint)


def source_key(model: ModelSource, resolved: Mapping[str, str]) -> str:
    """Key of `spec.model` or of a student: the block, and what it stands for now (`fingerprint.resolve`)."""
    block = model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=ACCESS | {"weights"})
    weights = [entry.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=ACCESS) for entry in model.weights]
    return _key({"kind": SOURCE, "model": block, "weights": weights, "resolved": dict(resolved)})


def stage_key(basis: Basis, stage: Stage, *, inputs: Mapping[str, str], code: str, student: str = "", hardware: str = "") -> str:
    """Key of a stage, 64 hex digits.

    `inputs` gives each role its key; `student` is the `source_key` of distill.student, where there is one; `hardware` the CPU or
    GPU model of a stage with a latency budget, which is not known before it runs (`needs_hardware`).
    """
    spec = stage.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=NAMES)
    dataset = basis.dataset.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=ACCESS)
    return _key(
        {
            "kind": stage.kind,
            "spec": spec,
            "task": basis.task,
            "seed": basis.seed,
            "seeds": basis.evaluation_seeds,
            "dataset": dataset,
            "fingerprint": basis.fingerprint,
            "inputs": dict(inputs),
            "student": student,
            "code": code,
            "hardware": hardware,
        }
    )


def needs_hardware(stage: Stage) -> bool:
    """Whether the result depends on the machine: a latency budget does."""
    return stage.prune is not None and stage.prune.constraints is not None and stage.prune.constraints.latency_ms is not None


def plan_keys(
    spec: CompressionJobSpec, fingerprint: str, *, source: str, code: Mapping[str, str], students: Mapping[str, str]
) -> dict[str, str]:
    """Every stage's key, and `source`'s, as far as they can be told before anything has run.

    `source` is the key of spec.model; `code` and `students` hold each stage's code version and, where it has a student,
    that one's key. The key of a stage with a latency budget, and every key below it, is one that no commit will ever have.
    """
    basis, keys = Basis.of(spec, fingerprint), {SOURCE: source}
    for stage in spec.stages:
        inputs = {entry.role: keys[entry.stage] for entry in inputs_of(spec, stage)}
        hardware = "unknown before it runs" if needs_hardware(stage) else ""
        student = students.get(stage.name, "")
        keys[stage.name] = stage_key(basis, stage, inputs=inputs, code=code[stage.name], student=student, hardware=hardware)
    return keys


def _key(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()
