"""A bucket, or a prefix of one, as a store.

Every request waits for itself until `patience` is over (`s3_client.py`); here is what is made of requests: objects, conditional
puts, transfers of whole folders with many parts at a time. What each error means stands in `s3_errors.py`.
"""

import contextlib
import datetime
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError
from s3transfer.futures import TransferFuture
from s3transfer.manager import TransferConfig, TransferManager
from s3transfer.subscribers import BaseSubscriber

from kompress_api.errors import CredentialsRefused, InvalidManifest, KompressError
from kompress_jobs.storage.objects import CHUNK, PATIENCE, ObjectInfo, changed, join, relative_files, safe_path
from kompress_jobs.storage.s3_client import CONCURRENCY, Backoff, build_client
from kompress_jobs.storage.s3_errors import NO_BODY, TRANSPORT, map_error

log = logging.getLogger(__name__)

PART = 32 << 20
"""Bytes of a part; S3 takes 10,000 parts, s3transfer makes them larger for what is larger."""
DELETE_BATCH = 1000
"""Keys that one DeleteObjects takes."""


class S3Store:
    """Implements `store.Store` on `s3://`."""

    def __init__(
        self, uri: str, role: str, *, endpoint: str | None, region: str | None, secret: str | None, patience: float = PATIENCE
    ) -> None:
        self.bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self.prefix = prefix.strip("/")
        if not self.bucket:
            raise InvalidManifest(f"{uri} names no bucket", hint="write s3://bucket/prefix", field=f"spec.{role}")
        self.uri = f"s3://{join(self.bucket, self.prefix)}"
        self.patience = patience
        self._options = (role, endpoint, region, secret)
        self._own_client: tuple[int, Any] | None = None
        self._client()  # credentials that can't be read are refused here, not in the middle of a stage

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_own_client": None}

    def read(self, key: str) -> bytes:
        return b"".join(self.stream(key))

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        tags: list[str] = []
        content = b"".join(self._stream(key, tags.append))
        return content, tags[0]

    def stream(self, key: str) -> Iterator[bytes]:
        return self._stream(key, lambda _: None)

    def read_part(self, entry: ObjectInfo, start: int, stop: int) -> bytes:
        return b"".join(self._stream(entry.key, lambda _: None, part=range(start, stop), etag=entry.etag)) if start < stop else b""

    def write(self, key: str, content: bytes) -> None:
        with self._boundary("PutObject", key):
            self._client().put_object(**self._address(key), Body=content)

    def create(self, key: str, content: bytes) -> bool:
        with self._boundary("PutObject (If-None-Match)", key):
            return self._put_if(key, content, IfNoneMatch="*")

    def replace(self, key: str, content: bytes, etag: str) -> bool:
        with self._boundary("PutObject (If-Match)", key):
            return self._put_if(key, content, IfMatch=etag)

    def head(self, key: str) -> ObjectInfo | None:
        with self._boundary("HeadObject", key):
            try:
                answer = self._client().head_object(**self._address(key))
            except ClientError as error:
                if error.response["Error"]["Code"] != NO_BODY:
                    raise
                self._require_bucket()
                return None
        return ObjectInfo(key, answer["ContentLength"], answer["ETag"], _nanoseconds(answer["LastModified"]))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        below = f"{self.prefix}/" if self.prefix else ""
        with self._boundary("ListObjectsV2", prefix):
            pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=below + prefix)
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):  # what some consoles make to show an empty folder
                        key = entry["Key"].removeprefix(below)
                        yield ObjectInfo(key, entry["Size"], entry["ETag"], _nanoseconds(entry["LastModified"]))

    def delete(self, keys: Iterable[str]) -> None:
        pending = list(keys)
        for start in range(0, len(pending), DELETE_BATCH):
            batch = pending[start : start + DELETE_BATCH]
            with self._boundary("DeleteObjects", batch[0]):
                names = [{"Key": self._address(key)["Key"]} for key in batch]
                answer = self._client().delete_objects(Bucket=self.bucket, Delete={"Objects": names, "Quiet": True})
                for refused in answer.get("Errors", ()):
                    if refused.get("Code") != "NoSuchKey":
                        status = 403 if refused.get("Code") == "AccessDenied" else 500
                        raise ClientError({"Error": refused, "ResponseMetadata": {"HTTPStatusCode": status}}, "DeleteObjects")

    def remove(self, prefix: str) -> None:
        self.delete([entry.key for entry in self.list(prefix)])
        # The parts of uploads that nobody will complete are paid for, though no listing shows them.
        with contextlib.suppress(CredentialsRefused), self._boundary("ListMultipartUploads", prefix):
            client = self._client()
            pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self._address(prefix)["Key"] + "/")
            for page in pages:
                for upload in page.get("Uploads", ()):
                    with contextlib.suppress(client.exceptions.NoSuchUpload):
                        client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def upload(self, folder: Path, prefix: str, paths: Iterable[str] | None = None) -> None:
        def submit(manager: TransferManager, relative: str) -> TransferFuture:
            address = self._address(join(prefix, relative))
            return manager.upload(str(safe_path(folder, relative)), address["Bucket"], address["Key"])

        self._transfer("upload", prefix, relative_files(folder) if paths is None else list(paths), submit)

    def download(
        self, prefix: str, folder: Path, paths: Sequence[str] | None = None, *, listed: Sequence[ObjectInfo] | None = None
    ) -> None:
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        wanted = [entry.key.removeprefix(below) for entry in self.list(below)] if paths is None else list(paths)
        known = dict(zip(wanted, listed, strict=True)) if listed else {}
        for relative in wanted:
            with self._boundary("download", prefix):
                safe_path(folder, relative).parent.mkdir(parents=True, exist_ok=True)

        def submit(manager: TransferManager, relative: str) -> TransferFuture:
            address = self._address(below + relative)
            meant = [_Meant(known[relative])] if known else []
            return manager.download(address["Bucket"], address["Key"], str(safe_path(folder, relative)), subscribers=meant)

        self._transfer("download", prefix, wanted, submit)

    def _transfer(
        self, operation: str, prefix: str, paths: Sequence[str], submit: Callable[[TransferManager, str], TransferFuture]
    ) -> None:
        """All files at once; those whose transfer broke in a way that another try may mend are tried again."""
        backoff: Backoff | None = None
        while paths:
            broken = []
            problem: BaseException | None = None
            with TransferManager(self._client(), _transfer_config()) as manager:
                futures = [(path, submit(manager, path)) for path in paths]
                for path, future in futures:
                    with self._boundary(operation, join(prefix, path)):
                        try:
                            future.result()
                        except S3DownloadFailedError as error:  # the only thing that it stands for
                            raise changed(self._where(join(prefix, path))) from error
                        except (*TRANSPORT, RetriesExceededError, ClientError) as error:
                            if not _broke_on_the_way(error):
                                if isinstance(error, ClientError) and error.response["Error"]["Code"] == NO_BODY:
                                    self._require_bucket()
                                raise
                            broken.append(path)
                            problem = error
            if problem is not None:
                backoff = backoff or Backoff(self.patience)
                delay = backoff.delay()
                if delay is None:
                    raise self._mapped(problem, operation, join(prefix, broken[0])) from problem
                log.warning("%s of %d files below %s broke off (%s): again in %.1f s", operation, len(broken), prefix, problem, delay)
                time.sleep(delay)
            paths = broken

    def _stream(self, key: str, tell_etag: Callable[[str], None], *, part: range | None = None, etag: str = "") -> Iterator[bytes]:
        """The object, or a part of the one with this ETag."""
        offset, last = (part.start, str(part[-1])) if part else (0, "")
        backoff = None
        while True:
            with self._boundary("GetObject", key):
                resume = {"Range": f"bytes={offset}-{last}", "IfMatch": etag} if etag else {}
                try:
                    answer = self._client().get_object(**self._address(key), **resume)
                except ClientError as error:
                    if etag and error.response["ResponseMetadata"]["HTTPStatusCode"] == 412:
                        raise changed(self._where(key)) from error
                    raise
                if not etag:
                    etag = answer["ETag"]
                    tell_etag(etag)
                total = offset + answer["ContentLength"]
                try:
                    for chunk in answer["Body"].iter_chunks(CHUNK):
                        yield chunk
                        offset += len(chunk)
                        backoff = None
                except TRANSPORT as error:
                    backoff = backoff or Backoff(self.patience)
                    delay = backoff.delay()
                    if delay is None:
                        raise
                    log.warning(
                        "s3://%s/%s broke off at byte %d of %d (%s): again in %.1f s", self.bucket, key, offset, total, error, delay
                    )
                    time.sleep(delay)
                if offset >= total:
                    return

    def _put_if(self, key: str, content: bytes, **condition: str) -> bool:
        try:
            self._client().put_object(**self._address(key), Body=content, **condition)
        except ClientError as error:
            status, code = error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
            # If-Match on an object that is gone: 404 on AWS, 412 elsewhere.
            if status == 412 or ("IfMatch" in condition and code == "NoSuchKey"):
                return False
            raise
        return True

    def _require_bucket(self) -> None:
        """After a HEAD that found nothing: a request whose answer tells a missing key from a missing bucket or unknown credentials."""
        self._client().list_objects_v2(Bucket=self.bucket, MaxKeys=1)

    def _address(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": join(self.prefix, key)}

    def _where(self, key: str) -> str:
        return f"s3://{join(self.bucket, self.prefix, key)} at {self._client().meta.endpoint_url}"

    def _mapped(self, error: BaseException, operation: str, key: str) -> KompressError:
        return map_error(error, f"{operation} {self._where(key)}", bucket=self.bucket)

    @contextlib.contextmanager
    def _boundary(self, operation: str, key: str) -> Iterator[None]:
        try:
            yield
        except KompressError:
            raise
        except Exception as error:
            raise self._mapped(error, operation, key) from error

    def _client(self) -> Any:
        """The client of this process: sockets must not be shared with a forked child."""
        if self._own_client is None or self._own_client[0] != os.getpid():
            self._own_client = os.getpid(), build_client(*self._options, bucket=self.bucket, patience=self.patience)
        return self._own_client[1]


class _Meant(BaseSubscriber):  # type: ignore[misc]
    """Tells a transfer what is known of its object: nothing is asked twice, and an object that has changed is not taken (If-Match)."""

    def __init__(self, entry: ObjectInfo) -> None:
        super().__init__()
        self.entry = entry

    def on_queued(self, future: TransferFuture, **_: Any) -> None:
        future.meta.provide_transfer_size(self.entry.size)
        future.meta.provide_object_etag(self.entry.etag)
        future.meta.call_args.extra_args["IfMatch"] = self.entry.etag  # s3transfer itself sends it with parts only


def _nanoseconds(time: datetime.datetime) -> int:
    return int(time.timestamp() * 1e9)


def _transfer_config() -> TransferConfig:
    return TransferConfig(
        multipart_threshold=2 * PART,
        multipart_chunksize=PART,
        max_request_concurrency=CONCURRENCY,
        max_submission_concurrency=2,
        max_in_memory_upload_chunks=CONCURRENCY,
        max_in_memory_download_chunks=CONCURRENCY,
    )


def _broke_on_the_way(error: BaseException) -> bool:
    if isinstance(error, ClientError):
        # A completed multipart upload whose answer was lost is asked for again, and is not known any more.
        return bool(error.response["Error"]["Code"] == "NoSuchUpload")
    return True
