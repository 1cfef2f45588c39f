"""builtin://words: the same clips on every machine, made once, with voices in the test split that training never heard."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kompress_api.errors import DataUnreadable, InvalidManifest
from kompress_api.places import Dataset
from kompress_jobs import data
from kompress_jobs.builtins import words
from kompress_jobs.planning.fingerprint import fingerprint
from kompress_jobs.samples import Clips
from kompress_jobs.samples.splits import rank_of

SMALL = Dataset(source="builtin://words", arguments={"words": 3, "voices": 6})


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kompress" / "words"


def test_words_are_spoken_split_by_voice_and_kept(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = data.load(SMALL, tmp_path)
    assert found.labels == ["zero", "one", "two"]
    assert (found.sample_rate, found.clip_samples) == (16_000, 16_000)
    sizes = {name: len(getattr(found, name)) for name in ("train", "validation", "test")}
    assert sizes == {"train": 4 * 6, "validation": 6, "test": 6}, "of six voices one is held out, one is test; two accents, three words"
    for name in sizes:
        assert torch.bincount(getattr(found, name).labels).unique().numel() == 1
    clips, _ = found.train.read(torch.arange(24))
    assert isinstance(clips, Clips)
    assert clips.waves.abs().amax(1).min() > 0.05
    (kept,) = own_cache.glob("*.safetensors")
    monkeypatch.setattr(words, "spoken", lambda *_: pytest.fail("made twice"))
    again, _ = data.load(SMALL, tmp_path).train.read(torch.arange(24))
    assert torch.equal(again.waves, clips.waves)  # type: ignore[union-attr]
    assert kept.exists()


def test_two_machines_make_the_same_clips(own_cache: Path) -> None:
    asked = (("zero", "stop"), ["whisper", "klatt", "Mr serious"], 16_000)
    assert all(torch.equal(*pair) for pair in zip(words.spoken(*asked), words.spoken(*asked), strict=True))


def test_no_voice_is_in_two_splits(tmp_path: Path) -> None:
    """A model that knows the speaker would look better than it is."""
    found = data.load(SMALL, tmp_path)
    rows = {
        name: {wave.numpy().tobytes() for wave in split.read(torch.arange(len(split)))[0].waves}  # type: ignore[union-attr]
        for name in ("train", "validation", "test")
        if (split := getattr(found, name))
    }
    assert sum(map(len, rows.values())) == len(set().union(*rows.values()))
    assert len(set().union(*rows.values())) > 30, "a variant that is not applied would be one voice under many names"
    every = sorted(words.espeak.voices(), key=rank_of)[:6]
    test = min(every, key=lambda voice: (rank_of(voice), voice))
    spoken = words.spoken(("zero",), [test], 16_000).waves.float() / 32_768
    assert all(wave.numpy().tobytes() in rows["test"] for wave in spoken)


def test_voices_that_sound_alike_count_once(tmp_path: Path) -> None:
    """klatt and klatt6 are one voice: in training and test it would be learned by heart."""
    asked = words.spoken(("one", "two"), ["klatt", "m1", "klatt6"], 16_000)
    voice = torch.arange(3).repeat_interleave(2).repeat(2)
    assert words.distinct(asked, voice) == [0, 1]


def test_processes_that_start_together_make_it_once(own_cache: Path) -> None:
    script = (
        "from kompress_jobs.builtins import words\n"
        "kept = words.spoken\n"
        "words.spoken = lambda *a: print('made') or kept(*a)\n"
        "words.kept(('zero', 'one'), words.espeak.voices()[:3], 16000)\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=dict(os.environ)) for _ in range(2)]
    said = b"".join(process.communicate()[0] for process in started)
    assert [process.returncode for process in started] == [0, 0]
    assert said.count(b"made") == 1


def test_the_preflight_makes_a_few_voices_only(own_cache: Path, tmp_path: Path) -> None:
    asked = SMALL.model_copy(update={"arguments": {"words": 2}})
    found = data.load(asked, tmp_path, first=64)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [12, 4, 4]
    assert found.clip_samples == 16_000


def test_without_espeak_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataUnreadable, match="espeak-ng") as caught:
        data.load(SMALL, tmp_path)
    assert "apt-get install espeak-ng" in caught.value.hint
    assert caught.value.exit_code == 65


@pytest.mark.parametrize(
    ("arguments", "name"), [({"words": 21}, "words"), ({"voices": 2}, "voices"), ({"accents": 3}, "accents"), ({"words": "six"}, "words")]
)
def test_a_wrong_argument_is_named(arguments: dict[str, object], name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest) as caught:
        data.load(SMALL.model_copy(update={"arguments": arguments}), tmp_path)
    assert caught.value.field == f"spec.dataset.arguments.{name}"


def test_another_program_or_other_arguments_are_other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a stage would be reused that learned from other voices."""
    before = fingerprint(SMALL)
    assert before.means == "library"
    assert fingerprint(SMALL) == before
    fewer = SMALL.model_copy(update={"arguments": {"words": 3, "voices": 5}})
    assert fingerprint(fewer).digest != before.digest
    monkeypatch.setattr(words, "version", lambda: "eSpeak NG text-to-speech: 1.52")
    assert fingerprint(SMALL).digest != before.digest


def test_an_unknown_builtin_is_refused_before_it_is_fingerprinted() -> None:
    with pytest.raises(InvalidManifest, match="wrods") as caught:
        fingerprint(Dataset(source="builtin://wrods"))
    assert "builtin://words" in caught.value.hint
