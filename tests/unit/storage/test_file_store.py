"""A folder as a store: what is written is whole, and the first writer wins."""

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kompress_api.errors import ArtifactCorrupt, ArtifactMissing, CredentialsRefused, InvalidManifest, SpecCannotWork, StorageFailure
from kompress_api.places import Dataset, Output
from kompress_jobs.storage.file import FileStore
from kompress_jobs.storage.os_errors import map_os_error
from kompress_jobs.storage.store import open_store, prove_conditional


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore((tmp_path / "store").as_uri())


def test_what_is_written_can_be_read_headed_listed_and_removed(store: FileStore) -> None:
    store.write("a/b/one", b"1")
    store.write("a/two", b"22")
    assert store.read("a/b/one") == b"1"
    assert b"".join(store.stream("a/two")) == b"22"
    head = store.head("a/two")
    assert head is not None and head.size == 2
    assert [entry.key for entry in store.list("a/")] == ["a/b/one", "a/two"]
    assert list(store.list("a/"))[1] == head
    store.delete(["a/b/one", "a/never"])
    assert [entry.key for entry in store.list()] == ["a/two"]
    assert not (store.root / "a" / "b").exists()


def test_a_part_is_of_the_object_that_was_listed(store: FileStore) -> None:
    """Else a table is put together from two."""
    store.write("table", b"0123456789")
    (entry,) = store.list()
    assert store.read_part(entry, 2, 5) == b"234"
    store.write("table", b"abcdefghij")
    with pytest.raises(ArtifactCorrupt, match="table was overwritten"):
        store.read_part(entry, 2, 5)


def test_a_key_that_is_not_there_is_named(store: FileStore) -> None:
    assert store.head("nothing/here") is None
    assert list(store.list("nothing/")) == []
    with pytest.raises(ArtifactMissing, match="nothing/here"):
        store.read("nothing/here")


def test_only_one_of_many_threads_creates(store: FileStore) -> None:
    won, barrier = [], threading.Barrier(16)

    def writer(name: bytes) -> None:
        barrier.wait()
        if store.create("deep/er/commit", name):
            won.append(name)

    threads = [threading.Thread(target=writer, args=(str(i).encode(),)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read("deep/er/commit") == won[0]


def test_a_stale_replacement_is_refused_and_one_of_many_threads_replaces(store: FileStore) -> None:
    store.write("commit", b"damaged")
    _, etag = store.read_tagged("commit")
    won, barrier = [], threading.Barrier(8)

    def writer(name: bytes) -> None:
        barrier.wait()
        if store.replace("commit", name, etag):
            won.append(name)

    threads = [threading.Thread(target=writer, args=(str(i).encode(),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read("commit") == won[0]
    assert not store.replace("gone", b"", etag)


def test_a_reader_never_sees_half_of_an_object(store: FileStore) -> None:
    contents = {bytes([i]) * 500_000 for i in range(4)}
    store.write("object", next(iter(contents)))
    done = threading.Event()

    def writer() -> None:
        for _ in range(10):
            for content in contents:
                store.write("object", content)
        done.set()

    thread = threading.Thread(target=writer)
    thread.start()
    while not done.is_set():
        assert store.read("object") in contents
    thread.join()


def test_a_dead_writers_leftovers_are_never_listed_and_go_with_their_folder(store: FileStore) -> None:
    store.write("checkpoints/step-1/a", b"")
    (store.root / "checkpoints/step-1/.kompress-0123456789abcdef").write_bytes(b"half")
    assert [entry.key for entry in store.list()] == ["checkpoints/step-1/a"]
    store.remove("checkpoints/step-1/")
    assert not (store.root / "checkpoints").exists()


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    """Threads take turns so often that they meet between any two lines."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_writers_and_removers_of_one_folder_do_not_trip_over_each_other(store: FileStore, impatient_threads: None) -> None:
    def work(name: str) -> None:
        for _ in range(200):
            store.write(f"shared/folder/{name}", b"x")
            store.delete([f"shared/folder/{name}"])

    failures: list[BaseException] = []

    def guarded(name: str) -> None:
        try:
            work(name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_folder_goes_up_and_comes_down_as_it_was(store: FileStore, tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "sub" / ".hidden").mkdir(parents=True)
    (made / "sub" / ".hidden" / "model").write_bytes(os.urandom(3_000_000))
    (made / "empty").touch()
    store.upload(made, "artifacts/key/uid-1")
    store.download("artifacts/key/uid-1", tmp_path / "all")
    store.download("artifacts/key/uid-1", tmp_path / "one", ["empty"])
    assert (tmp_path / "all/sub/.hidden/model").read_bytes() == (made / "sub/.hidden/model").read_bytes()
    assert sorted(path.name for path in (tmp_path / "all").rglob("*") if path.is_file()) == ["empty", "model"]
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["empty"]


def test_a_link_in_a_folder_is_refused_rather_than_followed(store: FileStore, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "key").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        store.upload(tmp_path / "made", "artifacts")


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/etc/passwd", "", "a\\b"])
def test_no_key_leads_out_of_the_store(store: FileStore, key: str) -> None:
    with pytest.raises(ArtifactCorrupt):
        store.write(key, b"")


def test_a_file_where_a_folder_is_needed_can_not_work(store: FileStore) -> None:
    store.write("tree", b"")
    with pytest.raises(SpecCannotWork, match="tree/leaf"):
        store.write("tree/leaf", b"")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFailure),
        (errno.EDQUOT, StorageFailure),
        (errno.EIO, StorageFailure),
        (errno.ESTALE, StorageFailure),
        (errno.EACCES, CredentialsRefused),
        (errno.EROFS, CredentialsRefused),
        (errno.ENOENT, ArtifactMissing),
        (errno.ENOTDIR, SpecCannotWork),
    ],
)
def test_errors_of_the_operating_system_have_an_exit_code_and_say_what_was_done(number: int, kind: type[Exception]) -> None:
    error = map_os_error(OSError(number, os.strerror(number)), "write /models/manifest.json")
    assert type(error) is kind
    assert "write /models/manifest.json" in str(error)
    assert error.hint


@pytest.mark.parametrize("uri", ["file://models/here", "file://./models"])
def test_a_relative_file_uri_is_refused(uri: str) -> None:
    with pytest.raises(InvalidManifest, match="no absolute path"):
        open_store(Output(uri=uri), "output")


def test_a_scheme_without_files_is_refused() -> None:
    with pytest.raises(InvalidManifest, match="builtin://digits is no place for files"):
        open_store(Dataset(source="builtin://digits"), "dataset")


def test_spaces_and_percent_signs_in_a_uri_mean_what_as_uri_made_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "my models 100%"
    open_store(Output(uri=folder.as_uri()), "output").write("a", b"1")
    assert (folder / "a").read_bytes() == b"1"


def test_a_folder_proves_that_it_refuses_the_second_writer_and_keeps_no_trace(store: FileStore) -> None:
    prove_conditional(store)
    assert list(store.list()) == []


def test_a_locked_file_system_is_refused_with_77(store: FileStore, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        with as_nobody(tmp_path):
            check_refused(store)
    else:
        (tmp_path / "store").mkdir(mode=0o500)
        check_refused(store)


def check_refused(store: FileStore) -> None:
    with pytest.raises(CredentialsRefused, match="Permission denied"):
        store.create("commit", b"")


@contextlib.contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """As another user, who may look into the test's folder and not write there."""
    for path in [folder, *folder.parents[:-2]]:
        path.chmod(path.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
