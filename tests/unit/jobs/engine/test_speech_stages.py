"""A few spoken phrases through every stage: what a recogniser gets wrong is what every stage is judged by."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kompress_api.errors import AccuracyCollapsed
from kompress_api.job import CompressionJobSpec
from kompress_api.places import Dataset
from kompress_jobs import ctc, data, reload
from kompress_jobs.bench import Bench
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.exporters import onnx
from kompress_jobs.loading import bundle
from kompress_jobs.preprocessing import parse
from kompress_jobs.rehearsal.rehearse import rehearse
from kompress_jobs.samples import transcripts
from kompress_jobs.stages import fine_tune

RunStage = Callable[..., StageOutput]
PACKAGES = str(Path(__file__).parent / "packages")
EXAMPLES = str(Path(__file__).parents[4] / "examples")
DATASET = {"source": "builtin://phrases", "arguments": {"words": 4, "voices": 40, "phrases": 8}, "clipSeconds": 2.0}
OWN = {"source": "python://phrases_model:net", "arguments": {"width": 48, "depth": 2}}
SPEECH: dict[str, Any] = {"task": "speech-recognition", "dataset": DATASET, "model": OWN}
TRAINING = {"batchSize": 4, "learningRate": 5e-3}
SHIP = {
    "formats": [{"type": "ONNX"}, {"type": "OpenVINO"}, {"type": "TorchScript"}],
    "targets": [{"threads": 1, "batchSizes": [1, 4]}],
    "benchmark": {"iterations": 10, "warmup": 1},
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, users_image: None) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("KOMPRESS_FACTORIES", "phrases_model, tiny_speech")
        patch.setenv("PYTHONPATH", f"{EXAMPLES}:{PACKAGES}")
        patch.syspath_prepend(EXAMPLES)
        yield


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> StageOutput:
    """A model that knows four words."""
    from stage_contexts import build_context

    context = build_context(tmp_path_factory.mktemp("learned"), {"fineTune": {"epochs": 10, **TRAINING}}, **SPEECH)
    return fine_tune.run(context)


def test_phrases_are_learned(learned: StageOutput) -> None:
    assert learned.metrics["wer"] < 0.2
    assert learned.metrics["cer"] < 0.1
    assert "accuracy" not in learned.metrics
    low, high = learned.details["intervals"]["wer"]
    assert low <= learned.metrics["wer"] <= high
    assert learned.details["before"]["metrics"]["wer"] > 0.8


def test_what_was_learned_is_taught_pruned_and_shipped(learned: StageOutput, run_stage: RunStage, tmp_path: Path) -> None:
    student = {"source": "python://phrases_model:net", "arguments": {"width": 32, "depth": 2}}
    distilled = {"teachers": [{"from": "adapt"}], "student": student, "epochs": 6, "augmentation": "None", **TRAINING}
    taught = run_stage({"distill": distilled}, inputs={"teacher0": learned.folder}, scratch="taught", told=learned, **SPEECH)
    assert taught.folder is not None
    assert taught.details["answers"] == [{"shards": 1, "asked": 1}], "the teacher's frames are kept as any teacher's answers"
    assert taught.metrics["wer"] < 0.3
    cut = {"pruningRatio": 0.25, "roundTo": 1, "scope": "Local", "sensitivity": True, "recovery": {"epochs": 2, **TRAINING}}
    slim = run_stage({"prune": cut}, inputs={"model": taught.folder}, scratch="slim", **SPEECH)
    assert slim.folder is not None
    assert slim.metrics["parameters"] < taught.metrics["parameters"] < learned.metrics["parameters"]
    assert slim.metrics["wer"] < 0.4
    ship = run_stage({"export": SHIP}, inputs={"model": slim.folder, "baseline": learned.folder}, scratch="ship", **SPEECH)
    assert ship.folder is not None
    parity = ship.details["parity"]["ONNX"]["cpu1"]
    assert parity["maxAbsolute"] < 1e-2
    assert parity["agreement"] > 0.999
    for name in ("latencyP50Ms", "baseline.latencyP50Ms", "baseline.wer", "throughputPerSecond@ONNX/cpu1/4"):
        assert name in ship.metrics
    # What a caller elsewhere does: spectrograms by the file's own numbers, the graph, and the best path by its labels.
    written = json.loads((ship.folder / reload.EXPORT).read_text())
    assert written["ctc"]
    phrases = data.load(Dataset.model_validate(DATASET), tmp_path, transcripts=True)
    samples, _ = phrases.test.read(torch.arange(len(phrases.test)))
    (images,) = parse(written["preprocessing"])(samples)
    scores = torch.from_numpy(onnx.open_engine(ship.folder / "model.onnx", 1)([images.numpy()]))
    said = [transcripts.decode(tokens, written["labels"]).split() for tokens in ctc.best_path(ctc.within(scores, samples))]
    true = [transcripts.decode(row, phrases.labels).split() for row in phrases.test.labels.tolist()]
    exact = sum(one == other for one, other in zip(true, said, strict=True)) / len(true)
    assert exact > 1 - 4 * ship.metrics["wer"] - 1e-9


@pytest.mark.parametrize("mode", ["Dynamic", "Static", "QAT"])
def test_fewer_bits_hear_as_well(mode: str, learned: StageOutput, run_stage: RunStage) -> None:
    spec: dict[str, Any] = {"mode": mode} | ({} if mode == "Dynamic" else {"calibration": {"numSamples": 32}})
    if mode == "QAT":
        spec["training"] = TRAINING | {"epochs": 1, "learningRate": 1e-3}
    found = run_stage({"quantize": spec}, inputs={"model": learned.folder}, told=learned, **SPEECH)
    assert found.metrics["wer"] <= learned.metrics["wer"] + 0.1
    if mode != "Dynamic":  # Dynamic rounds linear layers, which are few here
        assert found.metrics["modelSizeBytes"] < learned.metrics["modelSizeBytes"]


def test_weights_go_and_a_search_keeps_the_words(learned: StageOutput, run_stage: RunStage) -> None:
    masked = run_stage({"prune": {"granularity": "Weight", "sparsity": 0.3}}, inputs={"model": learned.folder}, scratch="weights", **SPEECH)
    assert masked.details["sparsity"] == pytest.approx(0.3, abs=0.02)
    search = {"search": {"maxDegradation": 0.3, "maxTrials": 2}, "roundTo": 1, "scope": "Local", "recovery": {"epochs": 1, **TRAINING}}
    found = run_stage({"prune": search}, inputs={"model": learned.folder}, scratch="search", **SPEECH)
    trials = found.details["search"]["trials"]
    assert trials[0]["accuracy"] > 0.6, "of words on validation, 1 - wer"
    assert found.metrics["parameters"] < learned.metrics["parameters"]


def test_a_soup_is_chosen_by_its_words(learned: StageOutput, run_stage: RunStage) -> None:
    soup = {"method": "GreedySoup", "models": [{"from": "one"}, {"from": "other"}]}
    found = run_stage({"fuse": soup}, inputs={"model0": learned.folder, "model1": learned.folder}, **SPEECH)
    assert found.metrics["wer"] == pytest.approx(learned.metrics["wer"], abs=0.1), "of twins, with batch norms seen anew"
    assert found.details["fuse"]["validation"] > 0.6


def test_adapters_learn_to_hear_and_are_merged(run_stage: RunStage) -> None:
    speech = SPEECH | {"model": {"source": "python://tiny_speech:mixed"}}
    whole = run_stage({"fineTune": {"epochs": 10, **TRAINING}}, scratch="whole", **speech)
    spec = {"strategy": "LoRA", "epochs": 1, **TRAINING, "learningRate": 1e-3, "lora": {"rank": 4, "targetModules": ["*inner*"]}}
    adapted = run_stage({"fineTune": spec}, inputs={"model": whole.folder}, scratch="adapted", told=whole, **speech)
    assert whole.folder is not None
    assert adapted.folder is not None
    before, after = (bundle.read(folder).model.state_dict() for folder in (whole.folder, adapted.folder))
    update = after["classifier.0.inner.0.weight"] - before["classifier.0.inner.0.weight"]
    assert int(torch.linalg.matrix_rank(update, atol=1e-5)) in range(1, 5)
    assert torch.equal(after["stem.weight"], before["stem.weight"])
    assert adapted.metrics["wer"] < 0.4, whole.metrics["wer"]


def test_early_stopping_keeps_the_best_words(run_stage: RunStage) -> None:
    """Its default looks at accuracy, which speech has of words only."""
    spec = {"epochs": 5, "learningRate": 1e-6, "batchSize": 64, "earlyStopping": {"patience": 1, "minDelta": 1.0}}
    with pytest.raises(AccuracyCollapsed, match="nothing was learned: wer"):
        run_stage({"fineTune": spec}, **SPEECH)


def test_what_can_not_be_learned_is_counted_and_told(make_context: Callable[..., StageContext]) -> None:
    context = make_context(
        {"fineTune": {"epochs": 1}},
        **SPEECH | {"model": {**OWN, "arguments": {"width": 8, "stride": 6}}, "dataset": DATASET | {"clipSeconds": 1.0}},
    )
    bench = Bench(context)
    bench.data.test.labels[:2, 1] = transcripts.UNKNOWN
    bench.warn(bench.task.remarks_on_data(bench.data))
    bench.take("model")
    told = (context.scratch / "events.jsonl").read_text()
    assert "2 transcripts of split test hold characters that train never has" in told
    assert "training clips that were looked at are as long as clips may be" in told
    assert "training transcripts that were looked at are longer than the model has frames for" in told


CONFIG = {"model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
EARS = {"conv_dim": [16, 16], "conv_stride": [16, 20], "conv_kernel": [32, 20], "num_feat_extract_layers": 2}
PLACES = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}


@pytest.mark.parametrize("library", ["python", "hf"])
def test_the_plan_rehearses_all_of_it(library: str, tmp_path: Path) -> None:
    """Own convolutions on spectrograms, and transformers' wav2vec2 on the waveform: all stages, before anything is trained."""
    folder = tmp_path / "wav2vec2"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | EARS | PLACES))
    model = OWN if library == "python" else {"source": f"hf://{folder}"}
    content = {
        "model": model,
        "stages": [
            {"name": "adapt", "fineTune": {"epochs": 1}},
            {"name": "learn", "distill": {"teachers": [{"from": "adapt"}], "epochs": 1, "student": model}},
            {"name": "slim", "prune": {"pruningRatio": 0.5, "roundTo": 1, "scope": "Local"}},
            {"name": "small", "quantize": {"mode": "Dynamic"}},
            {"name": "ship", "export": {"formats": [{"type": "ONNX"}]}},
        ],
    }
    few = data.load(Dataset.model_validate(DATASET), tmp_path, first=8, transcripts=True)
    forecasts = rehearse(CompressionJobSpec.model_validate(SPEECH | content), few, tmp_path)
    assert forecasts["slim"].parameters < forecasts["learn"].parameters
    assert forecasts["ship"].exact
