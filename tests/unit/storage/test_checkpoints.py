"""Checkpoints: the newest whole one of any attempt is found, and none but one's own are removed."""

import os
from pathlib import Path

import pytest

from kompress_api.errors import ArtifactCorrupt, ArtifactMissing
from kompress_jobs.storage.checkpoints import Checkpoint, CheckpointStore
from kompress_jobs.storage.file import FileStore

KEY = "ef" * 32


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore((tmp_path / "output").as_uri())


@pytest.fixture
def save(store: FileStore, tmp_path: Path):
    """save(uid, attempt, step, committed=True): two ranks upload their parts, rank 0 commits."""

    def saving(uid: str, attempt: int, step: int, *, committed: bool = True) -> CheckpointStore:
        folder = tmp_path / f"local-{uid}-{attempt}-{step}"
        folder.mkdir()
        checkpoints = CheckpointStore(store, KEY, uid, attempt)
        for rank in (0, 1):
            (folder / f"rank-{rank}.safetensors").write_bytes(os.urandom(1000))
            (folder / "memory.json").write_text(f"{uid} {attempt} {step}")
            checkpoints.upload(step, folder, [f"rank-{rank}.safetensors", *(["memory.json"] if rank == 0 else [])])
        if committed:
            assert checkpoints.commit(step) == Checkpoint(step, attempt, uid)
        return checkpoints

    return saving


def folders(store: FileStore) -> list[str]:
    below = f"checkpoints/{KEY}/"
    return sorted({"/".join(entry.key.removeprefix(below).split("/")[:2]) for entry in store.list(below)})


def test_there_is_none_at_first(store: FileStore) -> None:
    assert CheckpointStore(store, KEY, "uid", 1).newest() is None


def test_the_highest_step_of_any_attempt_of_any_job_is_the_newest(store: FileStore, save) -> None:
    save("a", 2, 40)
    save("b", 1, 90)
    save("a", 3, 100, committed=False)
    assert CheckpointStore(store, KEY, "c", 1).newest() == Checkpoint(90, 1, "b")


def test_it_comes_down_with_the_files_of_every_rank(store: FileStore, save, tmp_path: Path) -> None:
    save("a", 1, 10)
    resuming = CheckpointStore(store, KEY, "a", 2)
    newest = resuming.newest()
    assert newest is not None
    resuming.fetch(newest, tmp_path / "here")
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["memory.json", "rank-0.safetensors", "rank-1.safetensors"]
    assert (tmp_path / "here/memory.json").read_text() == "a 1 10"


def test_one_that_vanishes_while_it_is_read_gives_way_to_the_next(store: FileStore, save, tmp_path: Path) -> None:
    other = save("a", 1, 20)
    save("b", 1, 10)
    resuming = CheckpointStore(store, KEY, "c", 1)
    newest = resuming.newest()
    assert newest == Checkpoint(20, 1, "a")
    other.remove_own()
    with pytest.raises(ArtifactMissing):
        resuming.fetch(newest, tmp_path / "here")
    following = resuming.newest()
    assert following == Checkpoint(10, 1, "b")
    resuming.fetch(following, tmp_path / "there")


@pytest.mark.parametrize("damage", ["flip", "remove", "garble"])
def test_a_damaged_one_gives_way_to_the_next(store: FileStore, save, tmp_path: Path, damage: str) -> None:
    save("a", 1, 10)
    save("a", 1, 20)
    folder = store.root / f"checkpoints/{KEY}/a-1/step-20"
    if damage == "garble":
        (folder / "manifest.json").write_text("{")
    elif damage == "flip":
        (folder / "rank-1.safetensors").write_bytes(b"x" * 1000)
    else:
        (folder / "rank-1.safetensors").unlink()
    resuming = CheckpointStore(store, KEY, "a", 2)
    with pytest.raises(ArtifactMissing) as refused:
        resuming.fetch(Checkpoint(20, 1, "a"), tmp_path / "here")
    assert isinstance(refused.value, ArtifactCorrupt) == (damage != "remove")
    assert resuming.newest() == Checkpoint(10, 1, "a")


def test_the_last_two_of_a_job_are_kept_over_its_attempts(store: FileStore, save) -> None:
    for attempt, step in ((1, 10), (1, 20), (2, 30)):
        save("a", attempt, step)
    assert folders(store) == ["a-1/step-20", "a-2/step-30"]


def test_an_attempt_that_runs_on_beside_its_successor_leaves_his_checkpoints_alone(store: FileStore, save) -> None:
    for step in (20, 90, 100):
        save("a", 2, step)
    for step in (30, 40, 50):
        save("a", 1, step)
    assert folders(store) == ["a-1/step-40", "a-1/step-50", "a-2/step-100", "a-2/step-90"]


def test_one_that_is_still_being_written_survives_the_commit_of_an_older_one(store: FileStore, save) -> None:
    save("a", 1, 10)
    save("a", 1, 30, committed=False)
    save("a", 1, 20)
    assert folders(store) == ["a-1/step-10", "a-1/step-20", "a-1/step-30"]
    save("a", 1, 40)
    assert folders(store) == ["a-1/step-20", "a-1/step-40"]


def test_what_an_attempt_noted_is_there_for_the_next_of_its_job_until_the_stage_ends(store: FileStore, save) -> None:
    first, second, other = (CheckpointStore(store, KEY, uid, attempt) for uid, attempt in (("a", 1), ("a", 2), ("b", 1)))
    first.note("search", [{"ratio": 0.5}])
    save("a", 1, 10)
    assert second.noted("search") == [{"ratio": 0.5}]
    assert second.noted("another") is None
    assert other.noted("search") is None
    assert second.newest() == Checkpoint(10, 1, "a"), "a note is no checkpoint"
    other.remove_own()
    assert second.noted("search") == [{"ratio": 0.5}]
    second.remove_own()
    assert second.noted("search") is None and folders(store) == []


def test_the_end_of_a_stage_removes_the_own_jobs_and_nobody_elses(store: FileStore, save) -> None:
    save("a", 1, 10)
    save("ab", 1, 10)
    mine = save("a", 2, 20, committed=False)
    (store.root / f"checkpoints/{KEY}/a-2/step-20/.kompress-0123456789abcdef").write_bytes(b"half")
    mine.remove_own()
    assert folders(store) == ["ab-1/step-10"]
    assert not (store.root / f"checkpoints/{KEY}/a-2").exists()
    mine.remove_own()


def test_a_commit_without_files_is_refused(store: FileStore) -> None:
    with pytest.raises(ValueError, match="no rank has uploaded"):
        CheckpointStore(store, KEY, "a", 1).commit(5)


def test_ranks_that_start_again_with_other_parts_do_not_bring_back_old_digests(store: FileStore, tmp_path: Path) -> None:
    checkpoints = CheckpointStore(store, KEY, "a", 1)
    (tmp_path / "local").mkdir()
    for content, names in ((b"old", ["x", "y"]), (b"new", ["x"])):
        for name in names:
            (tmp_path / "local" / name).write_bytes(content)
        checkpoints.upload(7, tmp_path / "local", names)
    checkpoints.fetch(checkpoints.commit(7), tmp_path / "here")
    assert (tmp_path / "here/x").read_bytes() == b"new"
