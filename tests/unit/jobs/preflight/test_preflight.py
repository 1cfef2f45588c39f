"""The preflight's forecast is what the stages then find for themselves, and a plan that can't work ends here."""

import json
from pathlib import Path

import pytest

from kompress_api.contract import Artifact, StageInput
from kompress_api.errors import ArtifactCorrupt, DataUnreadable, KompressError, MethodRefused, UnknownModel
from kompress_api.places import Dataset
from kompress_jobs.events import Events
from kompress_jobs.planning import plan
from kompress_jobs.planning.fingerprint import fingerprint
from kompress_jobs.stages import preflight
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.store import open_store

STAGES = [
    {"name": "adapt", "fineTune": {"epochs": 1}},
    {"name": "slim", "prune": {"importance": "L1", "pruningRatio": 0.5}},
    {"name": "ship", "export": {"formats": [{"type": "ONNX"}]}},
]


ON_A_GPU = {"name": "ship", "export": {"formats": [{"type": "TorchExport"}], "targets": [{"device": "GPU"}]}}
A_GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}


def told(folder: Path, stages=STAGES, **fields) -> dict:
    spec = {
        "task": "image-classification",
        "model": {"source": "timm://resnet10t"},
        "dataset": {"source": "builtin://digits", "imageSize": 32},
        "output": {"uri": f"file://{folder}/output"},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        "evaluation": {"datasets": [{"source": "builtin://digits"}]},
        "stages": stages,
        **fields,
    }
    return {
        "job": {"name": "flowers", "uid": "u-1"},
        "kind": "preflight",
        "name": "preflight",
        "attempt": 1,
        "seed": 0,
        "evaluation": {},
        "spec": spec,
        **{name: spec[name] for name in ("task", "model", "dataset", "output", "tracking")},
    }


def run(folder: Path, **fields):
    stage = StageInput.model_validate(told(folder, **fields))
    return preflight.run(stage, folder, Events(folder)), open_store(stage.output, "output")


def stage_input(folder: Path, index: int, inputs: list[Artifact], planned) -> StageInput:
    common = {name: value for name, value in told(folder).items() if name != "spec"}
    kind = next(name for name in STAGES[index] if name != "name")
    own = {"kind": kind, "name": STAGES[index]["name"], "stage": STAGES[index], "plan": planned.plan, "planDigest": planned.plan_digest}
    return StageInput.model_validate({**common, **own, "inputs": [entry.dump() for entry in inputs]})


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    """A preflight that found nothing wrong: its folder, its result, its store."""
    folder = tmp_path_factory.mktemp("preflight")
    return folder, *run(folder)


def test_every_stage_finds_the_key_that_was_forecast_and_a_commit_is_a_hit(passed):
    tmp_path, planned, store = passed
    document = plan.read(store, stage_input(tmp_path, 0, [], planned))
    keys = {entry.name: entry.key for entry in document.stages}
    source = Artifact(role="model", stage="source")
    adapt = Artifact(role="model", stage="adapt", key=keys["adapt"])
    slim = Artifact(role="model", stage="slim", key=keys["slim"])
    inputs = [[source], [adapt], [slim, adapt.model_copy(update={"role": "baseline"})]]
    found = [plan.own_key(stage_input(tmp_path, index, entries, planned), document) for index, entries in enumerate(inputs)]
    assert found == list(keys.values())
    assert planned.keys == {name: key[:16] for name, key in keys.items()}
    assert planned.hits == dict.fromkeys(keys, False)

    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "bundle.json").write_text("{}")
    artifacts.commit(store, keys["adapt"], "another", 1, tmp_path / "made", {}, {}, [])
    again, _ = run(tmp_path)
    assert again.hits == {"adapt": True, "slim": False, "ship": False}


def test_a_source_that_is_another_than_the_preflight_saw_is_not_loaded(tmp_path):
    """Else what is made of it lies under the key of the first one, and later jobs take it for that."""
    from safetensors.torch import save_file
    from torchvision.models import resnet18

    weights = tmp_path / "weights.safetensors"
    save_file(resnet18(num_classes=10).state_dict(), weights)
    model = {"source": weights.as_uri(), "architecture": "torchvision://resnet18"}
    planned, store = run(tmp_path, model=model, stages=STAGES[:1])
    told_of = {"plan": planned.plan, "planDigest": planned.plan_digest, "kind": "fineTune", "name": "adapt", "stage": STAGES[0]}
    common = {name: value for name, value in told(tmp_path, model=model).items() if name != "spec"}
    stage = StageInput.model_validate({**common, **told_of, "inputs": [{"role": "model", "stage": "source"}]})
    plan.refuse_moved(stage, plan.read(store, stage))
    save_file({name: tensor + 1 for name, tensor in resnet18(num_classes=10).state_dict().items()}, weights)
    with pytest.raises(ArtifactCorrupt, match="has changed since the preflight"):
        plan.refuse_moved(stage, plan.read(store, stage))
    later = stage.model_copy(update={"inputs": [Artifact(role="model", stage="slim")]})
    plan.refuse_moved(later, plan.read(store, later))


def test_the_plan_tells_sizes_before_anything_has_run(passed):
    _, planned, store = passed
    document = json.loads(store.read("jobs/u-1/plan.json"))
    assert planned.metrics == document["source"]
    assert document["source"]["parameters"] > document["stages"][1]["figures"]["parameters"] > 0
    assert document["data"]["labels"] == [str(digit) for digit in range(10)]
    assert document["datasets"] == [fingerprint(Dataset(source="builtin://digits")).digest], "no stage has to look at the data again"


def test_a_plan_that_was_changed_is_not_believed(passed):
    tmp_path, planned, store = passed
    store.write("jobs/u-1/plan.json", b"{}")
    with pytest.raises(ArtifactCorrupt, match="has changed"):
        plan.read(store, stage_input(tmp_path, 0, [], planned))


def test_an_empty_data_folder_is_unreadable_data(tmp_path):
    (tmp_path / "data" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataUnreadable) as caught:
        run(tmp_path, dataset={"source": f"file://{tmp_path}/data", "format": "imagefolder"})
    assert caught.value.field == "spec.dataset.source"
    assert f"{tmp_path}/data" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "error", "field"),
    [
        ({"task": "speech-recognition"}, MethodRefused, "spec.dataset.source"),
        ({"stages": [STAGES[0], ON_A_GPU]}, MethodRefused, "spec.stages[1].export.targets[0].device"),
        ({"goals": [{"metric": "wer", "atMost": 0.1}]}, MethodRefused, "spec.goals[0].metric"),
        ({"model": {"source": "timm://resnet10q"}}, UnknownModel, "spec.model.source"),
        ({"dataset": {"format": "imagefolder"}}, DataUnreadable, "spec.dataset.source"),
    ],
)
def test_what_cannot_work_is_refused_by_field_path_and_leaves_no_plan(tmp_path, fields, error, field):
    if "dataset" in fields:
        fields = {"dataset": {**fields["dataset"], "source": f"file://{tmp_path}/nowhere"}}
    with pytest.raises(error) as caught:
        run(tmp_path, **fields)
    assert caught.value.field == field
    assert caught.value.hint
    assert not (tmp_path / "output" / "jobs").exists()


def test_a_gpu_target_is_planned_where_job_or_stage_asks_for_a_gpu(tmp_path):
    """The preflight itself has none. Resources are merged key by key, as for the pod."""
    planned, _ = run(tmp_path, runtime=A_GPU, stages=[STAGES[0], ON_A_GPU | {"runtime": {"resources": {"limits": {"memory": "4Gi"}}}}])
    assert planned.plan


def test_shards_on_a_gpu_that_processes_share_are_refused_before_one_is_asked_for(tmp_path):
    tune = {"name": "adapt", "fineTune": {"epochs": 1, "parallelism": "FSDP2"}}
    with pytest.raises(MethodRefused, match="a GPU for each process") as caught:
        run(tmp_path, runtime=A_GPU | {"processesPerNode": 2}, stages=[tune])
    assert caught.value.field == "spec.stages[0].fineTune.parallelism"


def test_an_output_that_cannot_be_written_is_told_before_the_models_are_looked_at(tmp_path):
    (tmp_path / "output").write_text("a file where the folder should be")
    with pytest.raises(KompressError, match="output"):
        run(tmp_path, model={"source": "timm://no_such_model"})
