"""`python -m measured_memory plan|run FOLDER JOB [INDEX INPUT]`: a preflight, or one stage and what it took, in a process of its own."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from stage_contexts import build_context

from kompress_api.contract import JobIdentity, StageInput
from kompress_jobs import registry, reload
from kompress_jobs.events import Events
from kompress_jobs.stages import preflight
from kompress_jobs.storage.store import open_store


def plan(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """plan.json."""
    places = {"output": {"uri": f"file://{folder}/output"}, "tracking": {"uri": "sqlite:///none"}}
    common = {name: job[name] for name in ("task", "model", "dataset")} | places
    identity = {"job": JobIdentity(name="test", uid="uid"), "kind": "preflight", "name": "preflight", "attempt": 1}
    stage = StageInput.model_validate(identity | common | {"seed": 0, "evaluation": {}, "spec": job | places})
    done = preflight.run(stage, folder, Events(folder))
    store = open_store(stage.output, "output")
    return dict(json.loads(store.read(done.plan.removeprefix(f"{store.uri}/"))))


def run(folder: Path, job: dict[str, Any], index: int, made: str) -> dict[str, Any]:
    """One stage, from the bundle at `made` (empty: the source)."""
    stage = job["stages"][index]
    roles = ("model", "baseline") if "export" in stage else ("model",)
    inputs = dict.fromkeys(roles, Path(made) if made else None)
    fields = {"model": job["model"], "dataset": job["dataset"], "inputs": inputs, "scratch": stage["name"]}
    context = build_context(folder, stage, **fields)
    output = registry.load("stages", context.input.kind, field="kind").run(context)
    size = sum(path.stat().st_size for path in output.folder.rglob("*") if path.is_file())
    return {"folder": str(output.folder), "workerMemoryBytes": reload.peak_memory_bytes(), "artifactBytes": size}


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, content = Path(sys.argv[2]), json.loads(sys.argv[3])
    print(json.dumps(plan(place, content) if sys.argv[1] == "plan" else run(place, content, int(sys.argv[4]), sys.argv[5])))
