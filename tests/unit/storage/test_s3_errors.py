"""The boundary to boto3: no exception of the SDK and no answer of a server gets past it without an exit code."""

import inspect
from types import ModuleType

import botocore.exceptions
import botocore.httpsession
import pytest
import s3transfer.exceptions
from botocore.exceptions import ClientError

from kompress_api.errors import (
    ArtifactMissing,
    BucketMissing,
    CredentialsRefused,
    KompressError,
    NoConditionalWrites,
    SpecCannotWork,
    StorageFailure,
    StorageUnavailable,
)
from kompress_jobs.storage.s3_errors import _HINTS, KINDS, TRANSPORT, map_error, worth_another_try

ANSWERS = (botocore.exceptions.ClientError, botocore.exceptions.EventStreamError)
"""Judged by their status and code, below."""
ROOTS = (botocore.exceptions.BotoCoreError,)
"""Never raised itself."""


def exceptions_of(module: ModuleType) -> list[type[Exception]]:
    found = [entry for _, entry in inspect.getmembers(module, inspect.isclass) if issubclass(entry, Exception)]
    return [entry for entry in found if entry.__module__ == module.__name__ and not issubclass(entry, Warning)]


def instance(kind: type[Exception]) -> Exception:
    """Of any class, whatever its constructor wants."""
    return kind.__new__(kind)


def kinds_of(exception: type[Exception]) -> list[type[KompressError]]:
    return [kind for kind, classes in KINDS.items() if issubclass(exception, classes)]


@pytest.mark.parametrize(
    "exception", [*exceptions_of(botocore.exceptions), *exceptions_of(s3transfer.exceptions)], ids=lambda kind: kind.__name__
)
def test_every_exception_of_the_sdk_is_one_of_ours(exception: type[Exception]) -> None:
    if exception in ANSWERS + ROOTS:
        assert kinds_of(exception) == []
    else:
        assert len(kinds_of(exception)) == 1


def test_what_the_sdk_raises_when_a_connection_fails_is_worth_another_try() -> None:
    raised_by_the_http_layer = {
        entry for entry in vars(botocore.httpsession).values() if inspect.isclass(entry) and entry in exceptions_of(botocore.exceptions)
    } - {botocore.exceptions.InvalidProxiesConfigError}
    assert len(raised_by_the_http_layer) >= 6
    for exception in raised_by_the_http_layer:
        assert issubclass(exception, TRANSPORT)
        assert worth_another_try(instance(exception), None)


def answer(status: int, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "words"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


@pytest.mark.parametrize(
    ("status", "code", "kind", "again"),
    [
        (404, "NoSuchBucket", BucketMissing, False),
        (404, "NoSuchKey", ArtifactMissing, False),
        (404, "404", ArtifactMissing, False),
        (404, "XAdminUserNotFound", CredentialsRefused, False),
        (404, "NotFoundByAProxy", SpecCannotWork, False),
        (403, "AccessDenied", CredentialsRefused, False),
        (403, "InvalidAccessKeyId", CredentialsRefused, False),
        (403, "SignatureDoesNotMatch", CredentialsRefused, False),
        (403, "RequestTimeTooSkewed", CredentialsRefused, False),
        (403, "403", CredentialsRefused, False),
        (400, "ExpiredToken", CredentialsRefused, False),
        (401, "Unauthorized", CredentialsRefused, False),
        (400, "InvalidBucketName", SpecCannotWork, False),
        (405, "MethodNotAllowed", SpecCannotWork, False),
        (409, "ObjectParentIsFile", SpecCannotWork, False),
        (409, "ConditionalRequestConflict", StorageUnavailable, True),
        (409, "OperationAborted", StorageUnavailable, True),
        (400, "BadDigest", StorageUnavailable, True),
        (400, "RequestTimeout", StorageUnavailable, True),
        (408, "408", StorageUnavailable, True),
        (429, "TooManyRequests", StorageUnavailable, True),
        (500, "InternalError", StorageUnavailable, True),
        (503, "SlowDown", StorageUnavailable, True),
        (504, "504", StorageUnavailable, True),
        (501, "NotImplemented", NoConditionalWrites, False),
        (507, "XMinioStorageFull", StorageFailure, False),
    ],
)
def test_every_answer_has_its_exit_code(status: int, code: str, kind: type[KompressError], again: bool) -> None:
    error = answer(status, code)
    assert worth_another_try(None, error.response) is again
    mapped = map_error(error, "PutObject s3://models/flowers/manifest.json at http://minio:9000", bucket="models")
    assert type(mapped) is kind
    assert "PutObject s3://models/flowers/manifest.json at http://minio:9000" in str(mapped)
    assert "models" in str(mapped)
    assert mapped.hint


def test_an_exception_that_nobody_knows_is_retryable_and_our_own_pass_through() -> None:
    assert type(map_error(LookupError("?"), "GetObject s3://b/k", bucket="b")) is StorageUnavailable
    own = StorageFailure("full", hint="free space")
    assert map_error(own, "GetObject s3://b/k", bucket="b") is own


def test_each_kind_has_its_hint() -> None:
    assert set(KINDS) <= set(_HINTS)
