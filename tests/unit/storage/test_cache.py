"""Copies on a node: brought once, never wrong, and gone when the disk is needed, or every pod would wait for the network again, train on
old samples, or be evicted."""

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from kompress_api.contract import ENV_CACHE
from kompress_api.errors import ArtifactCorrupt
from kompress_jobs.storage import cache
from kompress_jobs.storage.cache import Cache, node_cache
from kompress_jobs.storage.file import FileStore
from kompress_jobs.storage.objects import ObjectInfo


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    for name in ("a.png", "b.png", "c.png"):
        path = tmp_path / "bucket" / "deep" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    return FileStore(f"file://{tmp_path}/bucket")


@pytest.fixture
def copies(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "node")


def test_a_copy_is_brought_once_and_ends_as_its_object_does(store: FileStore, copies: Cache) -> None:
    objects = list(store.list())
    first = copies.bring(store, objects, origin="")
    assert [path.read_bytes() for path in first] == [store.read(entry.key) for entry in objects]
    assert {path.suffix for path in first} == {".png"}
    inodes = [path.stat().st_ino for path in first]
    assert [path.stat().st_ino for path in copies.bring(store, objects, origin="")] == inodes
    assert not list((copies.folder / cache.INCOMING).iterdir())


def test_what_has_changed_is_another_copy_and_what_changes_meanwhile_is_refused(store: FileStore, copies: Cache) -> None:
    before = list(store.list())
    copies.bring(store, before[:1], origin="")
    store.write("deep/a.png", b"new")
    store.write("deep/b.png", b"new")
    (path,) = copies.bring(store, list(store.list())[:1], origin="")
    assert path.read_bytes() == b"new"
    with pytest.raises(ArtifactCorrupt, match=r"deep/b\.png was overwritten"):
        copies.bring(store, before[1:2], origin="")


def test_a_part_is_made_once_and_one_that_could_not_be_made_is_not_there(store: FileStore, copies: Cache) -> None:
    entry = next(store.list())
    made: list[int] = []

    def write(target: Path) -> None:
        made.append(1)
        target.write_bytes(b"half")
        if len(made) == 1:
            raise ArtifactCorrupt("torn", hint="again")

    path = copies.part_of(store, entry, "column 1", origin="")
    with pytest.raises(ArtifactCorrupt):
        copies.make(path, 4, write)
    for _ in range(2):
        copies.make(path, 4, write)
    assert path.read_bytes() == b"half"
    assert len(made) == 2
    others = {copies.part_of(store, entry, "column 2", origin=""), *copies.bring(store, [entry], origin="")}
    assert path not in others
    assert len(others) == 2
    assert not list((copies.folder / cache.INCOMING).iterdir())


def test_the_same_key_of_two_servers_are_two_copies(store: FileStore, copies: Cache) -> None:
    entry = next(store.list())
    one, other = (copies.bring(store, [entry], origin=origin)[0] for origin in ("http://here", "http://there"))
    assert one != other


def test_a_full_disk_loses_what_was_not_used_for_longest(store: FileStore, copies: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = list(store.list())
    used, old, young = copies.bring(store, objects, origin="")
    coming = copies.folder / cache.INCOMING / "other" / "d.png"
    coming.parent.mkdir()
    coming.write_bytes(b"half")
    for age, path in enumerate((young, old, coming, used), 1):
        os.utime(path, (time.time() - 3600 * age,) * 2)
    copies.bring(store, objects[:1], origin="")  # used now
    left = SimpleNamespace(total=10_000, free=10_000 * cache.KEPT_FREE + 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: left)
    copies.make_room(400)
    assert [path.exists() for path in (used, old, young)] == [True, False, True]
    assert coming.exists(), "another process is bringing it"
    with copies.open(store, objects[1], origin="") as file:
        assert file.read() == store.read(objects[1].key)


def test_what_is_small_stays_on_a_full_disk(store: FileStore, copies: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each batch would throw out the one before, and an epoch would wait for the network as long as the first did."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=2000 / cache.ALWAYS, free=2000))
    objects = list(store.list())
    paths = [copies.bring(store, [entry], origin="")[0] for entry in objects]  # 500 bytes each
    assert all(path.exists() for path in paths)
    for age, path in enumerate(paths):
        os.utime(path, (time.time() - 3600 + age,) * 2)
    copies.make_room(700)
    assert [path.exists() for path in paths] == [False, True, True]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=20_000 / cache.ALWAYS, free=100))
    copies.make_room(200)
    assert [path.exists() for path in paths] == [False, False, True], "what is needed must fit"


def test_many_make_room_at_once(tmp_path: Path, copies: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one looks for what can go, folders of others come and go."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1000 / cache.ALWAYS, free=1000))
    bucket = FileStore(f"file://{tmp_path}/bucket")
    for number in range(160):
        bucket.write(f"{number}.png", b"content")
    objects = list(bucket.list())

    def bring(share: list[ObjectInfo]) -> list[bytes]:
        return [copies.open(bucket, entry, origin="").read() for entry in share]

    with ThreadPoolExecutor(8) as pool:
        assert set().union(*pool.map(bring, (objects[start::8] for start in range(8)))) == {b"content"}


def test_those_who_want_the_same_bring_it_once(store: FileStore, copies: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the processes of a pod do that all keep a small set in memory."""
    brought: list[str] = []
    download = FileStore.download

    def counted(self, prefix, folder, paths=None, *, listed=None):  # type: ignore[no-untyped-def]
        brought.extend(paths)
        download(self, prefix, folder, paths, listed=listed)

    monkeypatch.setattr(FileStore, "download", counted)
    objects = list(store.list())
    threads = [threading.Thread(target=copies.bring, args=(store, objects), kwargs={"origin": ""}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(brought) == sorted(entry.key for entry in objects)


def test_a_mounted_folder_outlives_the_pod_and_where_there_is_none_the_pod_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENV_CACHE, raising=False)
    monkeypatch.setattr(cache, "CACHE_FOLDER", str(tmp_path / "mounted"))
    assert node_cache(tmp_path / "scratch").folder == tmp_path / "scratch" / "data"
    (tmp_path / "mounted").mkdir()
    assert node_cache(tmp_path / "scratch").folder == tmp_path / "mounted"
    monkeypatch.setenv(ENV_CACHE, str(tmp_path / "named"))
    assert node_cache(tmp_path / "scratch").folder == tmp_path / "named"
