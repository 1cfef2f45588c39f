"""text-classification: texts become the same numbers everywhere, and a BERT goes through every stage that has a meaning for it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_bert
import torch

from kompress_api.errors import ArtifactCorrupt, InvalidManifest, MethodRefused, StorageUnavailable, UnknownModel, UnsafeFile
from kompress_api.job import CompressionJobSpec
from kompress_api.places import Dataset, ModelSource
from kompress_jobs import data
from kompress_jobs.context import StageContext, StageOutput
from kompress_jobs.description import Loaded
from kompress_jobs.loading import assemble, bundle
from kompress_jobs.planning import fingerprint
from kompress_jobs.preprocessing import text
from kompress_jobs.rehearsal.rehearse import rehearse
from kompress_jobs.samples.splits import Data
from kompress_jobs.tasks import text_classification

RunStage = Callable[..., StageOutput]
MakeContext = Callable[..., StageContext]
TASK = "text-classification"
ROWS = 120


def byte_counts() -> text.Preprocessing:
    return text.Preprocessing(
        max_length=12, pad_id=0, inputs=["input_ids", "attention_mask"], tokenizer=text_classification.byte_tokenizer()
    )


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert.write(tmp_path_factory.mktemp("hub") / "bert")


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A dataset block: two subjects that one word tells apart."""
    folder = tmp_path_factory.mktemp("sentences")
    for split, start in (("train", 0), ("validation", ROWS), ("test", ROWS + 40)):
        rows = [
            {"text": f"{'open the socket' if i % 2 else 'draw the button'} {i * 7919 % 1000}", "label": ["gui", "net"][i % 2]}
            for i in range(start, start + (ROWS if split == "train" else 40))
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {"source": folder.as_uri(), "format": "json", "inputColumn": "text", "labelColumn": "label"}


@pytest.fixture
def read(sentences: dict[str, Any], tmp_path: Path) -> Data:
    return data.load(Dataset.model_validate(sentences), tmp_path)


def load(read: Data, folder: Path, **source: object) -> Loaded:
    return assemble.load_source(ModelSource.model_validate(source), read, TASK, 0, folder, field="spec.model")


# Tokens


def test_bytes_are_the_tokens_of_a_model_without_a_tokenizer() -> None:
    ids, mask = byte_counts()(["aé", "abcdef"])
    assert ids.tolist() == [[97 + 3, 0xC3 + 3, 0xA9 + 3, 1, 0, 0, 0], [*(letter + 3 for letter in b"abcdef"), 1]]
    assert mask.tolist() == [[1, 1, 1, 1, 0, 0, 0], [1] * 7]


def test_a_text_longer_than_the_model_takes_loses_its_end_and_is_counted() -> None:
    texts = ["short", "far too long for this model"]
    ids, _ = byte_counts()(texts)
    assert ids.shape == (2, 12)
    assert ids[1, -1] == 1, "the token that ends a text stays"
    assert byte_counts().shortened(texts) == 1


def test_no_text_at_all_is_still_a_batch() -> None:
    assert [part.shape for part in byte_counts()([])] == [(0, 1), (0, 1)]
    assert byte_counts()([""])[0].tolist() == [[1]]


def test_a_bundle_tokenizes_without_transformers_and_a_damaged_tokenizer_is_named(tmp_path: Path, bert: Path) -> None:
    """An image that serves a model need not hold the library that it came from."""
    made = text.Preprocessing(max_length=8, pad_id=0, inputs=["input_ids"], tokenizer=(bert / "tokenizer.json").read_bytes())
    (tmp_path / text.FILE).write_bytes(made.files()[text.FILE])
    (tmp_path / "settings.json").write_text(json.dumps(made.dump()))
    code = (
        "import json, pathlib, sys; from kompress_jobs import preprocessing; import kompress_jobs.models.hf;"
        "folder = pathlib.Path(sys.argv[1]);"
        "found = preprocessing.parse(json.loads((folder / 'settings.json').read_text())).load(folder);"
        "print(json.dumps(found(['open a file'])[0].tolist())); assert 'transformers' not in sys.modules"
    )
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == made(["open a file"])[0].tolist()
    (tmp_path / text.FILE).write_text("{}")
    with pytest.raises(ArtifactCorrupt, match=text.FILE):
        made.load(tmp_path)


# Models


def test_a_folder_s_weights_are_taken_over_and_the_bundle_needs_the_folder_no_more(read: Data, bert: Path, tmp_path: Path) -> None:
    moved = tmp_path / "bert"
    shutil.copytree(bert, moved)
    found = load(read, tmp_path, source=f"hf://{moved}", pretrained=True)
    from safetensors.torch import load_file

    own = load_file(moved / "model.safetensors")
    assert torch.equal(found.model.state_dict()["bert.embeddings.word_embeddings.weight"], own["embeddings.word_embeddings.weight"])
    assert found.fresh == ("classifier.bias", "classifier.weight")
    assert found.description.preprocessing.names == ("input_ids", "attention_mask", "token_type_ids")
    bundle.write(tmp_path / "bundle", found.model, found.description)
    shutil.rmtree(moved)
    again = bundle.read(tmp_path / "bundle")
    texts, _ = read.test.read(torch.arange(4))
    expected = found.model.eval()(*found.description.preprocessing(texts))
    assert expected.shape == (4, 2)
    assert torch.equal(again.model(*again.description.preprocessing(texts)), expected)
    assert [entry.shape for entry in again.description.inputs] == [[-1, -1]] * 3


def test_the_config_may_be_changed_and_a_typo_is_answered_with_the_near_name(read: Data, bert: Path, tmp_path: Path) -> None:
    found = load(read, tmp_path, source=f"hf://{bert}", arguments={"num_hidden_layers": 1})
    assert not any("layer.1." in name for name in found.model.state_dict())
    with pytest.raises(InvalidManifest, match="num_hiden_layers") as caught:
        load(read, tmp_path, source=f"hf://{bert}", arguments={"num_hiden_layers": 1})
    assert caught.value.field == "spec.model.arguments.num_hiden_layers"
    assert "num_hidden_layers" in caught.value.hint
    with pytest.raises(InvalidManifest) as caught:
        load(read, tmp_path, source=f"hf://{bert}", arguments={"num_attention_heads": 5})
    assert caught.value.field == "spec.model.arguments"


def test_the_manifest_may_cut_texts_shorter_but_not_longer_than_the_model_takes(read: Data, bert: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    assert load(read, tmp_path, source=f"hf://{bert}").description.preprocessing.max_length == 64  # type: ignore[attr-defined]
    assert load(replace(read, max_length=16), tmp_path, source=f"hf://{bert}").description.preprocessing.max_length == 16  # type: ignore[attr-defined]
    with pytest.raises(MethodRefused, match="takes 64 tokens, 65") as caught:
        load(replace(read, max_length=65), tmp_path, source=f"hf://{bert}")
    assert caught.value.field == "spec.dataset.maxLength"


def test_roberta_counts_its_positions_from_its_padding_token_on(read: Data, tmp_path: Path) -> None:
    folder = tiny_bert.write(tmp_path / "roberta", weights=False, model_type="roberta", pad_token_id=1, type_vocab_size=1)
    found = load(read, tmp_path, source=f"hf://{folder}")
    assert found.description.preprocessing.max_length == 62  # type: ignore[attr-defined]
    assert found.description.preprocessing.names == ("input_ids", "attention_mask")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"model_type": "berd"}, UnknownModel, "'berd'"),
        ({"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}, UnknownModel, "never executed"),
        ({"model_type": "vit"}, MethodRefused, "text-classification"),
    ],
)
def test_an_architecture_that_transformers_does_not_have_is_refused_and_no_code_runs(
    change: dict[str, Any], error: type[Exception], says: str, read: Data, tmp_path: Path
) -> None:
    folder = tiny_bert.write(tmp_path / "odd", weights=False)
    (folder / "evil.py").write_text("raise SystemExit('executed')")
    (folder / "config.json").write_text(json.dumps(tiny_bert.CONFIG | change))
    with pytest.raises(error, match=says):
        load(read, tmp_path, source=f"hf://{folder}")


def test_a_pickle_is_refused_and_a_folder_without_tokenizer_says_how_to_make_one(read: Data, bert: Path, tmp_path: Path) -> None:
    folder = tiny_bert.write(tmp_path / "pickled", weights=False, tokens=False)
    with pytest.raises(MethodRefused, match=r"tokenizer\.json") as caught:
        load(read, tmp_path, source=f"hf://{folder}")
    assert "save_pretrained" in caught.value.hint
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(UnsafeFile, match=r"pytorch_model\.bin"):
        load(read, tmp_path, source=f"hf://{folder}", pretrained=True)
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ArtifactCorrupt):
        load(read, tmp_path, source=f"hf://{folder}", pretrained=True)


def test_a_name_that_is_not_there_is_said_by_field(read: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownModel, match="nowhere is no folder") as caught:
        load(read, tmp_path, source=f"hf://{tmp_path}/nowhere")
    assert caught.value.field == "spec.model.source"
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StorageUnavailable, match=r"config\.json of hf://nobody/nothing") as refused:
        load(read, tmp_path, source="hf://nobody/nothing")
    assert refused.value.field == "spec.model.source"
    cached = tiny_bert.write(tmp_path / "hub/models--nobody--cached/snapshots/0", weights=False, tokens=False)
    (cached.parents[1] / "refs").mkdir()
    (cached.parents[1] / "refs/main").write_text("0")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(MethodRefused, match=r"holds no tokenizer\.json"):
        load(read, tmp_path, source="hf://nobody/cached")
    with pytest.raises(UnknownModel, match="a b"):
        load(read, tmp_path, source="hf://a b")


def test_a_folder_of_the_hub_is_known_by_its_content(tmp_path: Path) -> None:
    folder = tiny_bert.write(tmp_path / "known", weights=False)
    source = ModelSource(source=f"hf://{folder}")
    before = fingerprint.resolve(source)
    (folder / "README.md").write_text("text")
    assert fingerprint.resolve(source) == before
    (folder / "tokenizer.json").write_text("{}")
    assert fingerprint.resolve(source) != before


def test_a_user_s_own_module_gets_bytes_and_one_that_cannot_take_them_is_told(read: Data, tmp_path: Path) -> None:
    found = load(read, tmp_path, source="python://tiny_models:byte_bag")
    texts, _ = read.test.read(torch.arange(3))
    inputs = found.description.preprocessing(texts)
    assert [tuple(part.shape) for part in inputs] == [(3, max(map(len, texts)) + 1)] * 2
    assert found.model(*inputs).shape == (3, 2)
    with pytest.raises(MethodRefused, match="512 tokens") as caught:
        load(read, tmp_path, source="python://tiny_models:broken")
    assert "258" in caught.value.hint


def test_a_text_model_refuses_images_by_the_field_of_the_data(digits: Data, bert: Path, tmp_path: Path) -> None:
    for source in (f"hf://{bert}", "python://tiny_models:byte_bag"):
        with pytest.raises(MethodRefused, match="no texts") as caught:
            load(digits, tmp_path, source=source)
        assert caught.value.field == "spec.dataset.source"


# Stages


def test_a_bert_goes_through_the_stages(run_stage: RunStage, bert: Path, sentences: dict[str, Any], tmp_path: Path) -> None:
    """Fine-tuned from pretrained weights, distilled into half of it, shipped with any batch and length, the same model each time."""
    common: dict[str, Any] = {"task": TASK, "dataset": sentences, "model": {"source": f"hf://{bert}", "pretrained": True}}
    training = {"batchSize": 16, "learningRate": 3e-3}
    adapted = run_stage({"fineTune": {"epochs": 4, **training}}, **common)
    assert adapted.folder is not None
    assert adapted.metrics["accuracy"] > 0.9 > adapted.details["before"]["metrics"]["accuracy"]
    assert sorted(path.name for path in adapted.folder.iterdir()) == ["bundle.json", "measurements", "model.safetensors", "tokenizer.json"]
    teacher = adapted.folder.rename(tmp_path / "teacher")

    student = {"source": f"hf://{bert}", "arguments": {"num_hidden_layers": 1, "intermediate_size": 32}}
    distill = {"teachers": [{"from": "adapt"}], "student": student, "epochs": 4, **training}
    learned = run_stage({"distill": distill}, inputs={"teacher0": teacher}, scratch="learn", **common)
    assert learned.metrics["accuracy"] > 0.9
    assert learned.metrics["parameters"] < 0.8 * adapted.metrics["parameters"]
    assert learned.folder is not None

    export = {
        "formats": [{"type": "ONNX"}],
        "targets": [{"threads": 1, "batchSizes": [1, 3]}],
        "benchmark": {"iterations": 10, "warmup": 1},
    }
    shipped = run_stage({"export": export}, inputs={"model": learned.folder, "baseline": teacher}, scratch="ship", **common)
    assert shipped.folder is not None
    assert shipped.metrics["accuracy"] == learned.metrics["accuracy"]
    assert shipped.details["parity"]["ONNX"]["cpu1"]["maxAbsolute"] < 1e-4
    assert "latencyP50Ms@ONNX/cpu1/3" in shipped.metrics
    written = json.loads((shipped.folder / "export.json").read_text())
    assert [entry["shape"] for entry in written["inputs"]] == [[-1, -1]] * 3
    from kompress_jobs.exporters import onnx

    run = onnx.open_engine(shipped.folder / "model.onnx", 1)
    loaded = bundle.read(learned.folder)
    for texts in (["draw"], ["open the socket " * 40, "draw", "x"]):
        inputs = loaded.description.preprocessing(texts)
        assert torch.allclose(torch.from_numpy(run([part.numpy() for part in inputs])), loaded.model(*inputs), atol=1e-4)


def test_only_the_head_learns_in_feature_extraction(run_stage: RunStage, bert: Path, sentences: dict[str, Any]) -> None:
    model = {"source": f"hf://{bert}", "pretrained": True}
    stage = {"fineTune": {"epochs": 1, "strategy": "FeatureExtraction"}}
    made = run_stage(stage, task=TASK, dataset=sentences, model=model)
    assert made.folder is not None
    from safetensors.torch import load_file

    tuned, own = load_file(made.folder / "model.safetensors"), load_file(bert / "model.safetensors")
    assert all(torch.equal(tuned[f"bert.{name}"], tensor) for name, tensor in own.items())


def test_a_pod_says_what_does_not_fit(make_context: MakeContext, bert: Path, sentences: dict[str, Any]) -> None:
    from kompress_jobs.bench import Bench

    context = make_context(
        {"fineTune": {"epochs": 1}}, task=TASK, dataset=sentences | {"maxLength": 8}, model={"source": f"hf://{bert}", "pretrained": True}
    )
    Bench(context).take("model")
    told = "".join(path.read_text() for path in context.scratch.glob("*") if path.is_file())
    assert "2 weights do not come with the model and start fresh: classifier.bias, classifier.weight" in told
    assert f"{ROWS} of {ROWS} training samples that were looked at are longer than the model takes" in told


@pytest.mark.parametrize(
    ("stage", "field"),
    [
        ({"name": "a", "fineTune": {"epochs": 1, "augmentation": "Standard"}}, "spec.stages[0].fineTune.augmentation"),
        (
            {"name": "a", "prune": {"pruningRatio": 0.5, "recovery": {"epochs": 1, "augmentation": "Standard"}}},
            "spec.stages[0].prune.recovery.augmentation",
        ),
    ],
)
def test_what_has_no_meaning_for_texts_is_refused_before_anything_runs(
    stage: dict[str, Any], field: str, read: Data, bert: Path, sentences: dict[str, Any], tmp_path: Path
) -> None:
    spec = {"task": TASK, "model": {"source": f"hf://{bert}"}, "dataset": sentences, "stages": [stage]}
    with pytest.raises(MethodRefused) as caught:
        rehearse(CompressionJobSpec.model_validate(spec), read, tmp_path)
    assert caught.value.field == field
