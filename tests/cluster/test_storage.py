"""The store and its protocols against a real S3 server (versitygw), reached through a wire that the test can cut."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from commit_race import race
from kompress_api.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
    BucketMissing,
    CredentialsRefused,
    ExitCode,
    SpecCannotWork,
    StorageFailure,
    StorageUnavailable,
)
from kompress_api.places import Dataset, ModelSource, Output
from kompress_jobs.planning.fingerprint import fingerprint, resolve
from kompress_jobs.storage import artifacts, s3_client
from kompress_jobs.storage import s3 as s3_store
from kompress_jobs.storage.checkpoints import Checkpoint, CheckpointStore
from kompress_jobs.storage.s3 import S3Store
from kompress_jobs.storage.store import open_store, prove_conditional
from testcluster.servers import S3

KEY = "ab" * 32
PATIENCE = 120.0
PART = 5 << 20
"""The smallest part of an upload that S3 allows: these tests need many parts and no gigabytes."""
LARGE = 5 * PART + 5


class Wire:
    """A TCP relay in front of a server. Cut, it breaks every connection and refuses new ones, until it is mended."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.port = 0
        self.listener: socket.socket | None = None
        self.open: set[socket.socket] = set()
        self.was_cut = threading.Event()
        self.lock = threading.Lock()
        self.carried = 0
        self.cut_after: int | None = None
        """Bytes, of both directions, after which it cuts itself."""
        self.lose_answer_to = b""
        """Start of a request: the server gets it, its 200 is lost with all connections, and the wire is whole again."""
        self.mend()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def mend(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port, self.listener = listener.getsockname()[1], listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        with self.lock:
            listener, self.listener = self.listener, None
            if listener is None:
                return
            # Without the shutdown a thread that waits in accept() would keep the port.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for end in self.open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self.open.clear()
        self.was_cut.set()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(self.target)
            except OSError:
                return
            with self.lock:
                if self.listener is not listener:  # cut just now: a connection of that moment must not live on
                    for end in (client, server):
                        end.close()
                    return
                self.open |= {client, server}
            asked: list[bytes] = []
            threading.Thread(target=self._pump, args=(client, server, asked.append), daemon=True).start()
            threading.Thread(
                target=self._pump, args=(server, client, lambda answer, asked=asked: self._judge(asked, answer)), daemon=True
            ).start()

    def _judge(self, asked: list[bytes], answer: bytes) -> None:
        if self.lose_answer_to and answer.startswith(b"HTTP/1.1 200") and any(part.startswith(self.lose_answer_to) for part in asked):
            self.lose_answer_to = b""
            self.cut()
            self.mend()

    def _pump(self, source: socket.socket, sink: socket.socket, see: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                see(data)
                sink.sendall(data)
                self.carried += len(data)
                if self.cut_after is not None and self.carried > self.cut_after:
                    self.cut_after = None
                    self.cut()
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def outage(wire: Wire, *, after: int, tries: int = 8) -> Iterator[None]:
    """The wire is cut after so many bytes, and mended when the store has tried again so many times."""

    class Count(logging.Handler):
        left = tries

        def emit(self, record: logging.LogRecord) -> None:
            self.left -= 1
            if self.left == 0:
                wire.mend()

    counter, logger = Count(), logging.getLogger(s3_client.__name__)
    logger.addHandler(counter)
    wire.cut_after = wire.carried + after
    yield
    logger.removeHandler(counter)
    assert wire.was_cut.is_set()
    assert counter.left <= 0


@pytest.fixture
def wire(s3: S3) -> Iterator[Wire]:
    parts = urlsplit(s3.endpoint)
    wire = Wire((str(parts.hostname), int(parts.port or 80)))
    yield wire
    wire.cut()


@pytest.fixture(autouse=True)
def keys(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's keys as a laptop's user has them."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("KOMPRESS_CREDENTIALS", "")


@pytest.fixture
def output(s3: S3) -> Output:
    return Output(uri=f"s3://{s3.new_bucket()}/team/models", endpoint=s3.endpoint)


@pytest.fixture
def store(output: Output) -> S3Store:
    return opened(output)


def opened(output: Output, patience: float = PATIENCE) -> S3Store:
    store = open_store(output, "output", patience=patience)
    assert isinstance(store, S3Store)
    return store


def through(wire: Wire, output: Output, patience: float = PATIENCE) -> S3Store:
    return opened(output.model_copy(update={"endpoint": wire.endpoint}), patience)


def made(folder: Path, size: int = 100_000) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(size))
    (folder / "sub" / "bundle.json").write_text("{}")
    (folder / "empty").touch()
    return folder


def committed(store: S3Store, folder: Path, attempt: int) -> artifacts.Commit:
    return artifacts.commit(store, KEY, "uid", attempt, folder, {"accuracy": attempt / 10}, {}, [])


def test_the_server_honours_conditional_puts(store: S3Store) -> None:
    prove_conditional(store)
    assert list(store.list()) == []


def test_objects_are_written_read_listed_replaced_and_removed(store: S3Store) -> None:
    store.write("a/one", b"1")
    assert store.create("a/two", b"2")
    assert not store.create("a/two", b"other")
    content, etag = store.read_tagged("a/two")
    assert content == b"2"
    assert store.replace("a/two", b"22", etag)
    assert not store.replace("a/two", b"222", etag)
    assert not store.replace("a/never", b"", etag)
    assert [(entry.key, entry.size) for entry in store.list("a/")] == [("a/one", 1), ("a/two", 2)]
    assert store.head("a/one") == next(store.list("a/"))
    assert store.head("a/never") is None
    (entry,) = [entry for entry in store.list("a/") if entry.key == "a/two"]
    store.write("a/two", b"0123456789")
    with pytest.raises(ArtifactCorrupt, match=r"a/two .* was overwritten"):
        store.read_part(entry, 0, 1)
    changed = store.head("a/two")
    assert changed is not None
    assert (store.read_part(changed, 2, 5), store.read_part(changed, 3, 3)) == (b"234", b"")
    with pytest.raises(ArtifactMissing, match="team/models/a/never"):
        store.read("a/never")
    store.remove("a/")
    assert list(store.list()) == []


def test_a_folder_goes_up_in_parts_and_comes_down_as_it_was(store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "PART", PART)
    folder = made(tmp_path / "made", LARGE)
    got = committed(store, folder, 1)
    artifacts.fetch(store, got.uri, got.digest, tmp_path / "here")
    for path in ("model.safetensors", "sub/bundle.json", "empty"):
        assert (tmp_path / "here" / path).read_bytes() == (folder / path).read_bytes()
    artifacts.verify(store, got)


def test_processes_that_commit_at_once_all_get_the_one_commit(output: Output, store: S3Store, tmp_path: Path) -> None:
    got = race(output, KEY, 4, tmp_path)
    assert len({entry["digest"] for entry in got}) == 1
    assert [entry["reused"] for entry in got].count(False) == 1
    winner = got[0]["folder"]
    found = artifacts.reusable(store, KEY)
    assert found is not None and found.manifest.folder == winner
    # Losers remove only what is theirs, and all of it.
    assert {entry.key.split("/")[2] for entry in store.list()} == {winner, "manifest.json"}


def test_a_writer_killed_in_mid_upload_leaves_no_commit_and_the_next_one_wins(
    output: Output, store: S3Store, wire: Wire, tmp_path: Path
) -> None:
    folder, go = made(tmp_path / "made", 3 * s3_store.PART), tmp_path / "go"
    place = output.model_copy(update={"endpoint": wire.endpoint}).model_dump_json(by_alias=True)
    writer = subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1] / "commit_race.py"), place, KEY, "1", str(folder), str(go)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    wire.cut_after = s3_store.PART
    go.touch()
    assert wire.was_cut.wait(60)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert artifacts.find(store, KEY) is None
    assert not committed(store, folder, 2).reused
    assert artifacts.reusable(store, KEY) is not None
    # The parts that nobody completes go with the folder.
    store.remove(f"artifacts/{KEY}/uid-1/")
    assert "Uploads" not in store._client().list_multipart_uploads(Bucket=store.bucket)


def test_an_outage_in_mid_upload_costs_nothing_but_time(
    output: Output, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(s3_store, "PART", PART)
    store, folder = through(wire, output), made(tmp_path / "made", LARGE)
    with outage(wire, after=2 * PART):
        got = committed(store, folder, 1)
    assert "UploadPart" in caplog.text  # each part waits for itself,
    assert "broke off" not in caplog.text  # and no file is sent from its beginning again
    assert not got.reused
    artifacts.verify(store, got)


def test_an_outage_in_mid_download_costs_nothing_but_time(
    output: Output, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "PART", PART)
    store, folder = through(wire, output), made(tmp_path / "made", LARGE)
    got = committed(store, folder, 1)
    with outage(wire, after=2 * PART):
        artifacts.fetch(store, got.uri, got.digest, tmp_path / "here")
    assert (tmp_path / "here/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_commit_whose_answer_is_lost_is_won_all_the_same(output: Output, wire: Wire, tmp_path: Path) -> None:
    store = through(wire, output)
    wire.lose_answer_to = f"PUT /{store.bucket}/team/models/artifacts/{KEY}/manifest.json".encode()
    got = committed(store, made(tmp_path / "made"), 1)
    assert wire.was_cut.is_set()
    assert (got.reused, got.manifest.folder) == (False, "uid-1")
    artifacts.verify(store, got)


def test_a_stream_goes_on_where_it_broke_off(output: Output, wire: Wire, tmp_path: Path) -> None:
    store, folder = through(wire, output), made(tmp_path / "made", LARGE)
    store.upload(folder, "files")
    with outage(wire, after=2 * PART, tries=2):
        received = b"".join(store.stream("files/model.safetensors"))
    assert received == (folder / "model.safetensors").read_bytes()


def test_an_object_overwritten_while_it_is_read_is_never_mixed(output: Output, store: S3Store, wire: Wire) -> None:
    store.write("object", bytes(3 * PART))
    stream = through(wire, output).stream("object")

    def overwrite_in_the_middle() -> None:
        assert wire.was_cut.wait(60)
        store.write("object", b"\x01" * (3 * PART))
        wire.mend()

    wire.cut_after = wire.carried + PART
    with ThreadPoolExecutor(1) as writer:
        overwritten = writer.submit(overwrite_in_the_middle)
        with pytest.raises(ArtifactCorrupt, match="was overwritten while it was in use"):
            for _ in stream:
                pass
        overwritten.result()


def test_an_endpoint_that_stays_away_is_69_once_patience_is_over(output: Output, wire: Wire, tmp_path: Path) -> None:
    store = through(wire, output, patience=1.0)
    wire.cut()
    for act in (
        lambda: store.create("commit", b""),
        lambda: store.head("commit"),
        lambda: list(store.list()),
        lambda: store.upload(made(tmp_path / "made"), "files"),
        lambda: store.download("files", tmp_path / "here", ["a"]),
    ):
        with pytest.raises(StorageUnavailable) as refused:
            act()
        assert refused.value.exit_code == ExitCode.UNAVAILABLE
        assert store.bucket in str(refused.value) and wire.endpoint in str(refused.value)
        assert "tried" in str(refused.value)


def test_a_server_that_accepts_and_never_answers_is_69_too(output: Output) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = opened(output.model_copy(update={"endpoint": f"http://127.0.0.1:{silent.getsockname()[1]}"}), patience=1.0)
        with pytest.raises(StorageUnavailable, match="ReadTimeoutError"):
            store.read("commit")


def every_operation(store: S3Store, folder: Path):
    """(name, call) of each way to the server."""
    return {
        "read": lambda: store.read("k"),
        "write": lambda: store.write("k", b""),
        "create": lambda: store.create("k", b""),
        "replace": lambda: store.replace("k", b"", '"00000000000000000000000000000000"'),
        "head": lambda: store.head("k"),
        "list": lambda: list(store.list()),
        "delete": lambda: store.delete(["k"]),
        "upload": lambda: store.upload(folder, "files"),
        "download": lambda: store.download("files", folder.parent / "down", ["model.safetensors"]),
        "prove": lambda: prove_conditional(store),
    }


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_77_whatever_is_done(output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv(wrong, "wrong")
    folder = made(tmp_path / "made")
    for name, act in every_operation(opened(output), folder).items():
        with pytest.raises(CredentialsRefused) as refused:
            act()
        assert refused.value.exit_code == ExitCode.CREDENTIALS_REFUSED, name
        assert output.uri.split("/")[2] in str(refused.value), name


def test_the_keys_of_a_mounted_secret_open_the_place(output: Output, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("KOMPRESS_CREDENTIALS", str(tmp_path))
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "AWS_ACCESS_KEY_ID").write_text(s3.access_key)
    (tmp_path / "output" / "AWS_SECRET_ACCESS_KEY").write_text(s3.secret_key + "\n")
    prove_conditional(opened(output.model_copy(update={"credentials_secret": "keys"})))


def test_a_missing_bucket_is_78_whatever_is_done(s3: S3, tmp_path: Path) -> None:
    store = opened(Output(uri="s3://there-is-none/models", endpoint=s3.endpoint))
    folder = made(tmp_path / "made")
    for name, act in every_operation(store, folder).items():
        with pytest.raises(BucketMissing, match="there is no bucket 'there-is-none'") as refused:
            act()
        assert refused.value.exit_code == ExitCode.SPEC_CANNOT_WORK, name


def test_a_key_below_another_key_is_refused_and_not_tried_again(store: S3Store) -> None:
    store.write("tree", b"")
    with pytest.raises(SpecCannotWork, match="409"):
        store.write("tree/leaf", b"")


def test_one_changed_byte_is_refused_then_replaced(store: S3Store, tmp_path: Path) -> None:
    got = committed(store, made(tmp_path / "made"), 1)
    key = f"artifacts/{KEY}/uid-1/model.safetensors"
    content = bytearray(store.read(key))
    content[50_000] ^= 1
    store.write(key, bytes(content))
    with pytest.raises(ArtifactCorrupt, match=r"model\.safetensors has changed.*SHA-256") as refused:
        artifacts.fetch(store, got.uri, got.digest, tmp_path / "here")
    assert refused.value.exit_code == ExitCode.INPUT_MISSING
    assert artifacts.reusable(store, KEY) is None
    again = committed(store, made(tmp_path / "made2"), 2)
    assert "model.safetensors has changed" in again.replaced
    found = artifacts.reusable(store, KEY)
    assert found is not None and found.manifest.folder == "uid-2"


def test_a_bundle_without_commit_marker_is_refused(output: Output, store: S3Store, tmp_path: Path) -> None:
    folder = made(tmp_path / "made")
    store.upload(folder, f"artifacts/{KEY}/uid-1")
    source = ModelSource(source=f"{store.uri}/artifacts/{KEY}/uid-1", endpoint=output.endpoint)
    with pytest.raises(ArtifactMissing, match="has no commit"):
        artifacts.locate(source, "model")
    got = committed(store, folder, 1)
    assert artifacts.locate(source, "model").digest == got.digest
    assert resolve(source) == {"source": f"commit {got.digest}"}


def test_data_are_known_by_their_listing(output: Output, store: S3Store) -> None:
    store.write("data/train/cat/1.png", b"1")
    data = Dataset(source=f"{store.uri}/data", endpoint=output.endpoint, format="imagefolder")
    before = fingerprint(data)
    assert (before.means, before.files, before.size) == ("listing", 1, 1)
    assert fingerprint(data) == before
    store.write("data/train/cat/1.png", b"2")
    assert fingerprint(data).digest != before.digest
    single = ModelSource(source=f"{store.uri}/data/train/cat/1.png", endpoint=output.endpoint, architecture="timm://resnet18")
    assert resolve(single)["source"].startswith("files sha256:")


def test_checkpoints_are_found_by_the_next_attempt_and_removed_by_their_own_job(store: S3Store, tmp_path: Path) -> None:
    for uid, attempt, step in (("a", 1, 10), ("a", 1, 20), ("a", 2, 30), ("b", 1, 25)):
        checkpoints = CheckpointStore(store, KEY, uid, attempt)
        checkpoints.upload(step, made(tmp_path / f"{uid}-{step}"))
        checkpoints.commit(step)
    resuming = CheckpointStore(store, KEY, "a", 3)
    newest = resuming.newest()
    assert newest == Checkpoint(30, 2, "a")
    resuming.fetch(newest, tmp_path / "here")
    assert (tmp_path / "here/model.safetensors").read_bytes() == (tmp_path / "a-30/model.safetensors").read_bytes()
    resuming.remove_own()
    assert resuming.newest() == Checkpoint(25, 1, "b")
    with pytest.raises(ArtifactMissing):
        resuming.fetch(newest, tmp_path / "gone")
    assert {entry.key.split("/")[2] for entry in store.list()} == {"b-1"}


def test_a_store_can_be_used_on_both_sides_of_a_fork(store: S3Store) -> None:
    for side in ("parent", "child"):
        store.write(side, side.encode() * 1000)

    def right(side: str) -> bool:
        return all(store.read(side) == side.encode() * 1000 for _ in range(100))

    child = os.fork()  # with a connection open, which the two must not share
    if child == 0:
        os._exit(0 if right("child") else 1)
    mine = right("parent")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert mine


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.fail("mounting a small file system needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_74_and_leaves_nothing_half_done(output: Output, store: S3Store, small_disk: Path, tmp_path: Path) -> None:
    folder = made(tmp_path / "made")
    (folder / "model.safetensors").write_bytes(os.urandom(2_000_000))
    got = committed(store, folder, 1)
    with pytest.raises(StorageFailure, match="No space left on device") as refused:
        artifacts.fetch(store, got.uri, got.digest, small_disk / "here")
    assert refused.value.exit_code == ExitCode.IO_ERROR
    assert not list(small_disk.rglob("model.safetensors*"))
    local = open_store(Output(uri=(small_disk / "output").as_uri()), "output")
    with pytest.raises(StorageFailure, match="No space left on device"):
        artifacts.commit(local, KEY, "uid", 1, folder, {}, {}, [])
    assert artifacts.find(local, KEY) is None
    assert not list(small_disk.rglob("model.safetensors*"))
