"""The commit protocol: one commit, whole, whatever happens to its writers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commit_race import race
from kompress_api.errors import ArtifactCorrupt, ArtifactMissing, StorageUnavailable
from kompress_api.places import ModelSource, Output
from kompress_jobs.storage import artifacts
from kompress_jobs.storage.artifacts import Commit, ManifestInput
from kompress_jobs.storage.file import FileStore

KEY = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore((tmp_path / "output").as_uri())


def made(folder: Path, content: bytes) -> Path:
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(content * 1000)
    (folder / "sub" / "bundle.json").write_bytes(content)
    return folder


def commit(store: FileStore, folder: Path, attempt: int, uid: str = "uid") -> Commit:
    return artifacts.commit(store, KEY, uid, attempt, made(folder, str(attempt).encode()), {"accuracy": 0.5 + attempt / 100}, {}, [])


def keys_of(store: FileStore) -> list[str]:
    return [entry.key.removeprefix(f"artifacts/{KEY}/") for entry in store.list()]


def test_a_commit_names_its_files_figures_and_inputs(store: FileStore, tmp_path: Path) -> None:
    folder = made(tmp_path / "made", b"1")
    inputs = [ManifestInput(role="model", stage="adapt", key="cd" * 32, digest="sha256:00")]
    got = artifacts.commit(store, KEY, "uid", 1, folder, {"accuracy": 0.9}, {"interval": [0.8, 1.0]}, inputs)
    assert (got.reused, got.replaced) == (False, "")
    assert got.uri == f"{store.uri}/artifacts/{KEY}/uid-1"
    manifest = json.loads(store.read(f"artifacts/{KEY}/manifest.json"))
    assert manifest["folder"] == "uid-1"
    assert [(file["path"], file["size"]) for file in manifest["files"]] == [("model.safetensors", 1000), ("sub/bundle.json", 1)]
    assert manifest["details"] == {"interval": [0.8, 1.0]}
    assert manifest["inputs"][0]["stage"] == "adapt"
    assert artifacts.reusable(store, KEY) == artifacts.find(store, KEY)


def test_an_input_comes_down_by_uri_and_digest(store: FileStore, tmp_path: Path) -> None:
    got = commit(store, tmp_path / "made", 1)
    artifacts.fetch(store, got.uri, got.digest, tmp_path / "here")
    assert (tmp_path / "here/sub/bundle.json").read_bytes() == b"1"


def test_nothing_is_committed_until_the_manifest_is_there(store: FileStore, tmp_path: Path) -> None:
    store.upload(made(tmp_path / "made", b"1"), f"artifacts/{KEY}/uid-1")
    assert artifacts.find(store, KEY) is None
    assert artifacts.reusable(store, KEY) is None
    with pytest.raises(ArtifactMissing, match="has no commit"):
        artifacts.fetch(store, f"{store.uri}/artifacts/{KEY}/uid-1", "", tmp_path / "here")


def test_the_second_writer_takes_the_firsts_artifact_and_removes_only_his_own_folder(store: FileStore, tmp_path: Path) -> None:
    first = commit(store, tmp_path / "made1", 1)
    store.write(f"artifacts/{KEY}/uid-2/left-by-an-earlier-try", b"")
    store.write(f"artifacts/{KEY}/uid-3/of-somebody-else", b"")
    second = commit(store, tmp_path / "made2", 2)
    assert second.reused
    assert (second.digest, second.metrics) == (first.digest, {"accuracy": 0.51})
    assert keys_of(store) == ["manifest.json", "uid-1/model.safetensors", "uid-1/sub/bundle.json", "uid-3/of-somebody-else"]


def test_a_retried_put_that_finds_its_own_commit_has_won(tmp_path: Path) -> None:
    store = Interfering((tmp_path / "output").as_uri(), lose_answer_of="create")
    got = commit(store, tmp_path / "made", 1)
    assert not got.reused
    assert "uid-1/model.safetensors" in keys_of(store)


def test_an_attempt_started_again_after_its_commit_never_writes_into_it(store: FileStore, tmp_path: Path) -> None:
    first = commit(store, tmp_path / "made", 1)
    again = artifacts.commit(store, KEY, "uid", 1, made(tmp_path / "other", b"different"), {"accuracy": 0.1}, {}, [])
    assert (again.reused, again.digest) == (False, first.digest)
    artifacts.verify(store, first)


def test_one_changed_byte_is_refused_with_file_and_digest_then_replaced(store: FileStore, tmp_path: Path) -> None:
    first = commit(store, tmp_path / "made", 1)
    file = store.root / f"artifacts/{KEY}/uid-1/model.safetensors"
    file.write_bytes(b"0" + file.read_bytes()[1:])
    with pytest.raises(ArtifactCorrupt, match=r"uid-1/model\.safetensors has changed.*SHA-256 [0-9a-f]{64}"):
        artifacts.fetch(store, first.uri, first.digest, tmp_path / "here")
    assert not (tmp_path / "here/model.safetensors").exists()
    assert artifacts.reusable(store, KEY) is None
    second = commit(store, tmp_path / "made2", 2)
    assert not second.reused
    assert "uid-1/model.safetensors has changed" in second.replaced
    found = artifacts.reusable(store, KEY)
    assert found is not None and found.manifest.folder == "uid-2"
    with pytest.raises(ArtifactCorrupt, match=r"the commit of .* has changed"):
        artifacts.fetch(store, first.uri, first.digest, tmp_path / "here")


@pytest.mark.parametrize("damage", ["truncate", "remove", "garble the manifest", "manifest that leads out"])
def test_a_damaged_commit_is_a_miss_and_is_replaced(store: FileStore, tmp_path: Path, damage: str) -> None:
    commit(store, tmp_path / "made", 1)
    folder = store.root / f"artifacts/{KEY}"
    match damage:
        case "truncate":
            (folder / "uid-1/model.safetensors").write_bytes(b"")
        case "remove":
            shutil.rmtree(folder / "uid-1")
        case "garble the manifest":
            (folder / "manifest.json").write_bytes(b"\x00not json")
        case _:
            text = (folder / "manifest.json").read_text()
            (folder / "manifest.json").write_text(text.replace("sub/bundle.json", "../../bundle.json"))
    assert artifacts.reusable(store, KEY) is None
    replaced = commit(store, tmp_path / "made2", 2)
    assert replaced.replaced
    assert artifacts.reusable(store, KEY) == replaced


def test_an_attempt_that_finds_its_own_commit_damaged_makes_it_whole_again(store: FileStore, tmp_path: Path) -> None:
    commit(store, tmp_path / "made", 1)
    (store.root / f"artifacts/{KEY}/uid-1/model.safetensors").write_bytes(b"")
    commit(store, tmp_path / "made", 1)
    assert artifacts.reusable(store, KEY) is not None


@pytest.mark.parametrize("content", ["empty", "link"])
def test_a_folder_that_can_not_be_stored_is_refused_before_anything_is_written(store: FileStore, tmp_path: Path, content: str) -> None:
    (tmp_path / "made").mkdir()
    if content == "link":
        (tmp_path / "made" / "model").symlink_to("/etc/hostname")
    with pytest.raises(ValueError):
        artifacts.commit(store, KEY, "uid", 1, tmp_path / "made", {}, {}, [])
    assert keys_of(store) == []


def test_a_figure_that_is_not_finite_is_refused(store: FileStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finite"):
        artifacts.commit(store, KEY, "uid", 1, made(tmp_path / "made", b"1"), {"loss": float("nan")}, {}, [])


def test_processes_that_commit_at_once_all_get_the_one_commit(tmp_path: Path) -> None:
    output = Output(uri=(tmp_path / "output").as_uri())
    got = race(output, KEY, 4, tmp_path)
    assert len({entry["digest"] for entry in got}) == 1
    winner = got[0]["folder"]
    assert [entry["reused"] for entry in got].count(False) == 1
    assert {entry["accuracy"] for entry in got} == {float(winner.removeprefix("uid-"))}
    store = FileStore(output.uri)
    assert artifacts.reusable(store, KEY) is not None
    assert {key.partition("/")[0] for key in keys_of(store)} == {winner, "manifest.json"}


class TestLocate:
    """`spec.model.source` that names a bundle."""

    @pytest.mark.parametrize("below", ["", "/uid-1", "/uid-1/"])
    def test_both_the_key_folder_and_the_files_folder_name_the_artifact(self, store: FileStore, tmp_path: Path, below: str) -> None:
        expected = commit(store, tmp_path / "made", 1)
        found = artifacts.locate(ModelSource(source=f"{store.uri}/artifacts/{KEY}{below}"), "model")
        assert (found.digest, found.uri) == (expected.digest, expected.uri)

    def test_a_bundle_without_commit_is_refused(self, store: FileStore, tmp_path: Path) -> None:
        store.upload(made(tmp_path / "made", b"1"), f"artifacts/{KEY}/uid-1")
        with pytest.raises(ArtifactMissing, match=r"has no commit") as refused:
            artifacts.locate(ModelSource(source=f"{store.uri}/artifacts/{KEY}/uid-1"), "model")
        assert refused.value.field == "spec.model"

    def test_a_losers_folder_beside_the_winners_is_refused(self, store: FileStore, tmp_path: Path) -> None:
        commit(store, tmp_path / "made", 1)
        store.write(f"artifacts/{KEY}/uid-9/model.safetensors", b"torn")
        with pytest.raises(ArtifactMissing, match="has no commit"):
            artifacts.locate(ModelSource(source=f"{store.uri}/artifacts/{KEY}/uid-9"), "model")


class Crash(Exception):
    """The process ends here."""


class Interfering(FileStore):
    """A folder whose user crashes before or after his n-th change, or loses the answer of a kind of change."""

    def __init__(self, uri: str, *, crash_at: int = -1, after: bool = False, lose_answer_of: str = "") -> None:
        super().__init__(uri)
        self.crash_at, self.after, self.lose_answer_of, self.changes = crash_at, after, lose_answer_of, 0

    def change(self, name: str, *arguments: Any) -> Any:
        self.changes += 1
        if self.changes == self.crash_at and not self.after:
            raise Crash
        result = getattr(super(), name)(*arguments)
        if self.changes == self.crash_at:
            raise Crash
        # A retry of a conditional put whose answer was lost finds the condition no longer met.
        return getattr(super(), name)(*arguments) if name == self.lose_answer_of else result

    def create(self, key: str, content: bytes) -> bool:
        return bool(self.change("create", key, content))

    def replace(self, key: str, content: bytes, etag: str) -> bool:
        return bool(self.change("replace", key, content, etag))

    def remove(self, prefix: str) -> None:
        self.change("remove", prefix)

    def upload(self, folder: Path, prefix: str, paths: Any = None) -> None:
        for path in paths:  # one by one, so that a crash leaves some
            self.change("upload", folder, prefix, [path])


steps = st.tuples(
    st.integers(1, 3),  # attempt
    st.integers(-1, 5),  # crash at this change
    st.booleans(),  # after it rather than before
    st.sampled_from(["", "create", "replace"]),  # whose answer is lost
    st.sampled_from(["", "", "flip", "remove"]),  # what then happens to the committed files
)


@settings(max_examples=50, deadline=None)
@given(st.lists(steps, min_size=1, max_size=6))
def test_whatever_happens_a_commit_is_whole_or_known_to_be_damaged(tmp_path_factory: pytest.TempPathFactory, history: list[Any]) -> None:
    tmp_path = tmp_path_factory.mktemp("history")
    uri = (tmp_path / "output").as_uri()
    store, damaged = FileStore(uri), True
    for attempt, crash_at, after, lose, damage in history:
        before = artifacts.find(store, KEY)
        try:
            got = commit(Interfering(uri, crash_at=crash_at, after=after, lose_answer_of=lose), tmp_path / f"made{attempt}", attempt)
        except Crash:
            pass
        else:
            # What an attempt reports is there, whole, and is what the next one finds.
            artifacts.verify(store, got)
            assert artifacts.find(store, KEY) == got
            damaged = False
        if before is not None and not damaged:
            assert artifacts.find(store, KEY) is not None
        if damage and (found := artifacts.find(store, KEY)) is not None:
            file = store.root / found.prefix / "model.safetensors"
            file.unlink(missing_ok=True)
            if damage == "flip":
                file.write_bytes(b"flipped")
            damaged = True
            assert artifacts.reusable(store, KEY) is None
    final = commit(store, tmp_path / "final", 9)
    assert artifacts.reusable(store, KEY) == final
    shutil.rmtree(tmp_path)


def test_a_store_that_loses_every_round_ends_as_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(FileStore):
        """Says of every object that it is there, and then that it is not."""

        def create(self, key: str, content: bytes) -> bool:
            return False

    monkeypatch.setattr(artifacts, "MAX_ROUNDS", 3)
    with pytest.raises(StorageUnavailable, match="was lost 3 times"):
        commit(Forgetful((tmp_path / "output").as_uri()), tmp_path / "made", 1)
