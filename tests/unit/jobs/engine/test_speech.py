"""speech-recognition: transcripts become tokens, frames become words, and errors are counted as anybody would count them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pytest
import soundfile
import torch
from pyarrow import ipc, parquet
from pydantic import TypeAdapter

from kompress_api.errors import DataUnreadable, MethodRefused
from kompress_api.job import CompressionJobSpec
from kompress_api.places import Dataset, ModelSource
from kompress_api.stages.distill import Distill
from kompress_api.stages.fine_tune import FineTune
from kompress_api.stages.fuse import Fuse
from kompress_jobs import ctc, data
from kompress_jobs.description import DESCRIPTION, Loaded
from kompress_jobs.evaluation import other_data
from kompress_jobs.loading import assemble, bundle
from kompress_jobs.losses import kd
from kompress_jobs.measure import paired, predictions, recognition
from kompress_jobs.preprocessing import waveform
from kompress_jobs.samples import Clips, transcripts
from kompress_jobs.samples.splits import Data
from kompress_jobs.tasks import speech_recognition as task
from kompress_jobs.tracking import model_files
from kompress_jobs.training.refusals import refuse_for_task

PHRASES = Dataset.model_validate({"source": "builtin://phrases", "arguments": {"words": 3, "voices": 6, "phrases": 2}})
ALPHABET = ["<blank>", " ", "a", "b", "c"]


def scores_of(text: str) -> torch.Tensor:
    """Frames that say it letter by letter; - is the blank. (1, frames, tokens)"""
    tokens = [ALPHABET.index("<blank>" if letter == "-" else letter) for letter in text]
    return 5 * torch.nn.functional.one_hot(torch.tensor([tokens]), len(ALPHABET)).float()


def clips(*lengths: int, width: int = 100) -> Clips:
    return Clips(torch.randn(len(lengths), width), torch.tensor(lengths))


def test_texts_become_tokens_and_come_back() -> None:
    alphabet = transcripts.alphabet_of(["Cab  A", "b"])
    assert alphabet == ALPHABET, "the blank, then train's characters in order, without capitals"
    targets = transcripts.encode([" CAB a", "b?"], alphabet)
    assert targets.tolist() == [[4, 2, 3, 1, 2], [3, transcripts.UNKNOWN, 0, 0, 0]]
    assert [transcripts.decode(row, alphabet) for row in targets.tolist()] == ["cab a", "b\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize(("said", "words"), [("aa-a-b", "aab"), ("---", ""), ("c-aab- -ba", "cab ba"), (" a  b ", " a b ")])
def test_the_best_path_leaves_out_repeats_and_blanks(said: str, words: str) -> None:
    (tokens,) = ctc.best_path(scores_of(said))
    assert transcripts.decode(tokens, ALPHABET) == words


@pytest.mark.parametrize(
    ("true", "said", "changes"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("abcd", "bcda", 2), ("ab", "xxabxx", 4)],
)
def test_distance_is_levenshtein_s(true: str, said: str, changes: int) -> None:
    assert recognition.distance(list(true), list(said)) == changes


def test_errors_are_counted_over_all_words_of_the_split() -> None:
    """A mean of each clip's own rate would weigh a clip of one word as much as a speech."""
    scores = torch.cat([scores_of(text) for text in ("a-b-c--", "a b c a", "-------")])
    targets = transcripts.encode(["abc", "a b a a", "b"], ALPHABET)
    found = recognition.figures(scores, targets, ALPHABET)
    assert found.values["wer"] == pytest.approx((0 + 1 + 1) / (1 + 4 + 1))
    assert found.values["cer"] == pytest.approx((0 + 1 + 1) / (3 + 7 + 1))
    assert "accuracy" not in found.values
    for name, value in found.values.items():
        low, high = found.intervals[name]
        assert low <= value <= high, name
    assert recognition.figures(scores, targets, ALPHABET).intervals == found.intervals


def test_a_word_with_a_letter_that_train_never_has_is_an_error() -> None:
    """Left out, it would make the test easier than it is."""
    found = recognition.figures(scores_of("a- bb"), transcripts.encode(["a b?"], ALPHABET), ALPHABET, intervals=False)
    assert found.values["wer"] == 0.5


def test_frames_behind_a_clip_s_end_say_nothing_and_count_nowhere() -> None:
    """A clip's loss, words and distillation must not depend on how long the others of its batch are."""
    own, theirs, lengths = torch.randn(2, 20, 5), torch.randn(2, 20, 5), clips(100, 42)
    trimmed = ctc.within(own, lengths)
    assert ctc.real(trimmed).sum(1).tolist() == [20, 9]
    targets = transcripts.encode(["ab a", "cc"], ALPHABET)
    each = torch.nn.functional.ctc_loss(
        own.log_softmax(2).transpose(0, 1), targets, torch.tensor([20, 9]), torch.tensor([4, 2]), reduction="mean"
    )
    assert float(task.loss(own, targets, lengths)) == pytest.approx(float(each), rel=1e-5)
    changed = own.clone()
    changed[1, 9:] = 9.0
    assert torch.equal(ctc.within(changed, lengths), trimmed)
    imitated = kd.loss(trimmed, ctc.within(theirs, lengths), targets, 2.0)
    frames = torch.nn.functional.kl_div((own / 2).log_softmax(2), (theirs / 2).log_softmax(2), reduction="none", log_target=True).sum(2)
    assert float(imitated) == pytest.approx(4 * float(torch.cat([frames[0], frames[1, :9]]).mean()), rel=1e-5)
    halved = ctc.within(theirs, lengths).half()
    assert ctc.real(halved).sum(1).tolist() == [20, 9], "a teacher's answers are kept in float16"
    assert task.rows(trimmed).shape == (29, 5)


def test_a_transcript_that_does_not_fit_into_its_frames_teaches_nothing_and_harms_nothing() -> None:
    targets = transcripts.encode(["abab", "aa"], ALPHABET)
    assert transcripts.frames_needed(targets).tolist() == [4, 3], "a blank stands between two equal letters"
    scores = torch.randn(2, 8, 5, requires_grad=True)
    short = clips(25, 100)
    assert task.unlearnable(short, targets, 8).tolist() == [True, False]
    task.loss(scores, targets, short).backward()
    assert scores.grad is not None
    assert scores.grad[0].abs().max() == 0
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[1].abs().max() > 0


def test_augmentation_never_loses_what_the_transcript_says() -> None:
    heard = clips(100, 40, 95)
    heard = Clips(heard.waves.clamp(-0.4, 0.4) * (torch.arange(100) < heard.lengths[:, None]), heard.lengths)
    draws = torch.tensor([[1.0 - 1e-6, 0.5]] * 3)
    moved = task.augment(heard, "Light", draws)
    assert isinstance(moved, Clips)
    assert moved.lengths.tolist() == [100, 50, 100]
    for before, after in zip(heard.waves, moved.waves, strict=True):
        assert torch.allclose(before.square().sum(), after.square().sum())


def as_arrow(path: Path, rows: list[dict[str, str]]) -> None:
    table = pyarrow.Table.from_pylist(rows)
    with ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table)


WRITERS: dict[str, Callable[[Path, list[dict[str, str]]], object]] = {
    "csv": lambda path, rows: path.write_text("audio,text\n" + "".join(f'{row["audio"]},"{row["text"]}"\n' for row in rows)),
    "json": lambda path, rows: path.write_text(json.dumps(rows)),
    "parquet": lambda path, rows: parquet.write_table(pyarrow.Table.from_pylist(rows), path),
    "arrow": as_arrow,
}


def spoken(folder: Path, rows: list[tuple[str, str]], form: str = "csv", **fields: Any) -> Dataset:
    """A table of clips of half a second, with their transcripts."""
    folder.mkdir(exist_ok=True)
    for number, (name, _) in enumerate(rows):
        soundfile.write(folder / name, 0.1 * numpy.sin(numpy.arange(4000) * (0.1 + number / 50)), 8000)
    WRITERS[form](folder / f"train.{form}", [{"audio": name, "text": text} for name, text in rows])
    asked = {"source": folder.as_uri(), "format": form, "inputColumn": "audio", "labelColumn": "text"}
    return Dataset.model_validate(asked | fields)


def read(dataset: Dataset, folder: Path, **fields: Any) -> Data:
    return data.load(dataset, folder / "scratch", transcripts=True, **fields)


@pytest.mark.parametrize("form", WRITERS)
def test_a_table_s_column_of_texts_are_transcripts(form: str, tmp_path: Path) -> None:
    rows = [(f"{number}.wav", text) for number, text in enumerate(["Ab", "b  a", "ba", "a b", "bab"] * 8)]
    found = read(spoken(tmp_path / "set", rows, form), tmp_path)
    assert found.labels == ["<blank>", " ", "a", "b"]
    assert (found.transcribed, found.multi_label, found.absent) == (True, False, [])
    assert [len(split) for split in (found.train, found.validation, found.test)] == [32, 4, 4]
    texts = dict(rows)
    for split in (found.train, found.validation, found.test):
        for row, name in zip(split.labels.tolist(), split.names, strict=True):  # type: ignore[attr-defined]
            line = int(name.rpartition(":")[2]) - (2 if form == "csv" else 1)  # its header is row 1
            assert transcripts.decode(row, found.labels) == transcripts.normal(texts[f"{line}.wav"])
    few = read(spoken(tmp_path / "set", rows, form), tmp_path, first=8)
    assert few.labels == found.labels, "a plan must know the head's size, of a few samples as of all"
    assert len(few.train) == 8


def test_a_row_without_a_transcript_is_named_and_skipped(tmp_path: Path) -> None:
    rows = [(f"{number}.wav", "ab") for number in range(20)] + [("silent.wav", " ")]
    with pytest.raises(DataUnreadable, match=r"train.csv:22"):
        read(spoken(tmp_path / "set", rows), tmp_path)
    found = read(spoken(tmp_path / "set", rows, maxUnreadableFraction=0.1), tmp_path)
    assert found.unreadable["train"] == ["train.csv:22 (no label)"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"source": "builtin://words"}, "source"), ({"source": "file:///clips", "format": "audiofolder"}, "format")],
)
def test_data_with_labels_are_no_transcripts(fields: dict[str, Any], field: str, tmp_path: Path) -> None:
    asked = Dataset.model_validate({"arguments": {"words": 2, "voices": 3}} | fields)
    with pytest.raises(MethodRefused, match="no transcripts") as caught:
        read(asked, tmp_path, first=4)
    assert caught.value.field == f"spec.dataset.{field}"
    assert "builtin://phrases" in caught.value.hint


def test_transcripts_are_no_labels(tmp_path: Path) -> None:
    with pytest.raises(MethodRefused, match="holds transcripts") as caught:
        data.load(PHRASES, tmp_path)
    assert "speech-recognition" in caught.value.hint


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Data:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return data.load(PHRASES, tmp_path_factory.mktemp("phrases"), transcripts=True)


def test_phrases_are_words_of_two_to_four_by_voices_that_training_never_hears(phrases: Data) -> None:
    said: dict[str, set[str]] = {}
    for name in ("train", "validation", "test"):
        split = getattr(phrases, name)
        heard, _ = split.read(torch.arange(len(split)))
        assert heard.waves.abs().amax(1).min() > 0.05
        assert heard.lengths.max() < heard.waves.shape[1], "a clip that is cut does not say its transcript"
        for row, called in zip(split.labels.tolist(), split.names, strict=True):
            voice, _, text = called.partition(": ")
            assert transcripts.decode(row, phrases.labels) == text
            assert 2 <= len(text.split()) <= 4
            assert set(text.split()) <= {"zero", "one", "two"}
            said.setdefault(name, set()).add(voice)
    assert sum(map(len, said.values())) == len(set().union(*said.values())) == 6


def own(folder: Path, read: Data, **source: Any) -> Loaded:
    asked = ModelSource.model_validate({"source": "python://phrases_model:net"} | source)
    return assemble.load_source(asked, read, "speech-recognition", 0, folder, field="spec.model")


@pytest.fixture(autouse=True)
def own_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOMPRESS_FACTORIES", "tiny_models,phrases_model")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[4] / "examples"))


def test_a_model_of_spectrograms_hears_them_unstretched_and_its_bundle_says_how_to_read_it(phrases: Data, tmp_path: Path) -> None:
    found = own(tmp_path, dataclasses.replace(phrases, image_size=64))
    described = found.description
    assert (described.ctc, described.labels) == (True, phrases.labels)
    assert [tuple(part.shape) for part in described.preprocessing.sample(1)] == [(1, 1, 64, 300)]
    bundle.write(tmp_path / "bundle", found.model, described)
    again = bundle.read(tmp_path / "bundle")
    assert again.description.ctc
    sample = described.preprocessing.sample(1)
    assert torch.equal(again.model(*sample), found.model.eval()(*sample))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"source": "python://tiny_models:convolutional"}, "not scores of shape"),
        ({"source": "python://tiny_models:broken"}, "does not take the data's clips"),
        ({"arguments": {"stride": 60}}, "CTC writes one token a frame"),
    ],
)
def test_models_that_can_not_spell_are_refused(source: dict[str, Any], why: str, phrases: Data, tmp_path: Path) -> None:
    with pytest.raises(MethodRefused, match=why) as caught:
        own(tmp_path, phrases, **source)
    assert str(caught.value.field).startswith("spec.model")
    assert caught.value.hint


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (FineTune, {"epochs": 1, "labelSmoothing": 0.1}, "labelSmoothing"),
    (FineTune, {"epochs": 1, "classWeights": "Balanced"}, "classWeights"),
    (FineTune, {"epochs": 1, "mixup": 0.1}, "mixup"),
    (FineTune, {"epochs": 1, "earlyStopping": {"metric": "f1"}}, "earlyStopping.metric"),
    (Distill, {"epochs": 1, "teachers": [{"from": "a"}], "losses": [{"type": "DKD"}]}, "losses[0].type"),
    (Fuse, {"method": "Ensemble", "models": [{"from": "a"}, {"from": "b"}]}, "method"),
]


@pytest.mark.parametrize(("kind", "content", "field"), REFUSED, ids=str)
def test_what_has_no_meaning_for_transcripts_is_refused(kind: Any, content: dict[str, Any], field: str) -> None:
    with pytest.raises(MethodRefused) as caught:
        refuse_for_task(TypeAdapter(kind).validate_python(content), task, field="stage")
    assert caught.value.field == f"stage.{field}"
    assert caught.value.hint


CONFIG = {
    "model_type": "wav2vec2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16, 16],
    "conv_stride": [16, 20],
    "conv_kernel": [32, 20],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 32,
}


def test_wav2vec2_gets_a_head_for_the_alphabet_and_keeps_what_it_has_learned(phrases: Data, tmp_path: Path) -> None:
    """Its own head spells another alphabet."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    folder = tmp_path / "wav2vec2"
    Wav2Vec2ForCTC(Wav2Vec2Config.from_dict(CONFIG)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "return_attention_mask": True})
    )
    found = own(tmp_path, phrases, source=f"hf://{folder}", pretrained=True)
    assert isinstance(found.description.preprocessing, waveform.Preprocessing)
    assert found.fresh == ("lm_head.bias", "lm_head.weight")
    assert found.description.history == [], "it was built with that head, not mended afterwards"
    samples, _ = phrases.test.read(torch.arange(2))
    scores = task.logits(found.model(*found.description.preprocessing(samples)), samples)
    assert scores.shape[2] == len(phrases.labels)
    bundle.write(tmp_path / "bundle", found.model, found.description)
    again = bundle.read(tmp_path / "bundle").model
    assert torch.allclose(
        again(*found.description.preprocessing(samples)), found.model(*found.description.preprocessing(samples)), atol=1e-5
    )


def test_two_recognisers_are_compared_clip_by_clip() -> None:
    """A report that only set two rates side by side could not tell a loss from chance."""
    targets = transcripts.encode(["abc", "a b a a", "b"] * 4, ALPHABET)
    positions = torch.arange(12).flip(0)
    good, bad = (
        predictions.decode(
            predictions.encode(
                recognition.predictions(torch.cat([scores_of(text) for text in said] * 4).flip(0), targets.flip(0), positions, ALPHABET)
            )
        )
        for said in (("a-b-c--", "a b a a", "---b---"), ("a-b-c--", "a b c a", "-------"))
    )
    found = paired.compare(good, bad)
    assert found is not None
    assert (found.flips.lost, found.flips.won, found.classes) == (8, 0, [])
    assert found.changes["wer"].value == pytest.approx(8 / 24)
    assert found.changes["wer"].low > 0
    assert {(entry.label, entry.before, entry.after) for entry in found.lost} == {("a b a a", "a b a a", "a b c a"), ("b", "b", "")}
    assert {"wer", "cer", "loss"} == set(found.changes)


def test_a_user_s_own_data_brings_its_transcripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_clips.py").write_text(
        "import numpy\n"
        "def load():\n"
        "    waves = [numpy.sin(numpy.arange(8000 + 100 * n) * 0.1).astype('float32') for n in range(20)]\n"
        "    return {'train': (waves, ['Yes  no' if n % 2 else 'no' for n in range(20)])}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("KOMPRESS_FACTORIES", "own_clips")
    found = read(Dataset(source="python://own_clips:load"), tmp_path)
    assert found.labels == ["<blank>", " ", "e", "n", "o", "s", "y"]
    assert {transcripts.decode(row, found.labels) for row in found.train.labels.tolist()} == {"yes no", "no"}


def test_a_student_of_another_stride_is_told_why(phrases: Data) -> None:
    with pytest.raises(MethodRefused, match="150 frames of a clip, its teacher 75"):
        kd.loss(torch.zeros(2, 150, 5), torch.zeros(2, 75, 5), torch.zeros(2, 3, dtype=torch.int64), 1.0)


def test_more_data_sets_are_refused_before_anything_runs(phrases: Data, tmp_path: Path) -> None:
    job = {"task": "speech-recognition", "model": {"source": "python://phrases_model:net"}, "dataset": {"source": "builtin://phrases"}}
    more = {"evaluation": {"datasets": [{"source": "builtin://phrases"}]}, "stages": [{"name": "adapt", "fineTune": {"epochs": 1}}]}
    with pytest.raises(MethodRefused, match="not for transcripts") as caught:
        other_data.rehearse(CompressionJobSpec.model_validate(job | more), phrases, own(tmp_path, phrases), task, tmp_path)
    assert caught.value.field == "spec.evaluation.datasets[0]"


def test_mlflow_is_told_that_scores_are_those_of_frames(phrases: Data, tmp_path: Path) -> None:
    """Else a server that checks the signature refuses every answer."""
    found = own(tmp_path, phrases)
    bundle.write(tmp_path / "bundle", found.model, found.description)
    described = model_files.parse((tmp_path / "bundle" / DESCRIPTION).read_bytes())
    assert model_files.signature(described).outputs.inputs[0].shape == (-1, -1, len(phrases.labels))
    assert model_files.metadata(described)["ctc"]
