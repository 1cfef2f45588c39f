"""The boundary to boto3: which of its errors is worth another try, and which of ours each of them is.

`KINDS` names every exception class of botocore and s3transfer; a test walks both libraries to see that none is missing. What
an S3 server answers is told apart by its HTTP status and, where that is not enough, by its error code.
"""

import http.client
import socket
from collections.abc import Mapping
from typing import Any

import botocore.exceptions as bce
import s3transfer.exceptions as s3e
import urllib3.exceptions

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
from kompress_jobs.storage.os_errors import map_os_error

TRANSPORT: tuple[type[BaseException], ...] = (
    bce.HTTPClientError,
    bce.ConnectionError,
    bce.ChecksumError,
    bce.IncompleteReadError,
    bce.FlexibleChecksumError,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    socket.gaierror,
)
"""The request or its answer was lost or mangled on its way: worth another try."""

KINDS: dict[type[KompressError], tuple[type[BaseException], ...]] = {
    StorageUnavailable: (
        *TRANSPORT,
        bce.CapacityNotAvailableError,
        bce.WaiterError,
        s3e.RetriesExceededError,
        s3e.S3UploadFailedError,
        s3e.S3DownloadFailedError,
        s3e.S3CopyFailedError,
        s3e.FatalError,
        s3e.TransferNotDoneError,
    ),
    CredentialsRefused: (
        bce.NoCredentialsError,
        bce.NoAuthTokenError,
        bce.TokenRetrievalError,
        bce.UnknownTokenProviderError,
        bce.PartialCredentialsError,
        bce.CredentialRetrievalError,
        bce.UnknownCredentialError,
        bce.ProfileNotFound,
        bce.ConfigParseError,
        bce.ConfigNotFound,
        bce.InvalidConfigError,
        bce.RefreshWithMFAUnsupportedError,
        bce.MetadataRetrievalError,
        bce.InvalidIMDSEndpointError,
        bce.InvalidIMDSEndpointModeError,
        bce.InvalidSTSRegionalEndpointsConfigError,
        bce.SSOError,
        bce.LoginError,
    ),
    SpecCannotWork: (
        bce.DataNotFoundError,
        bce.UnknownRegionError,
        bce.ApiVersionNotFoundError,
        bce.UnknownSignatureVersionError,
        bce.UnsupportedSignatureVersionError,
        bce.ServiceNotInRegionError,
        bce.BaseEndpointResolverError,
        bce.EndpointProviderError,
        bce.InvalidEndpointConfigurationError,
        bce.InvalidEndpointDiscoveryConfigurationError,
        bce.MissingParametersError,
        bce.ValidationError,
        bce.ParamValidationError,
        bce.UnknownServiceStyle,
        bce.PaginationError,
        bce.OperationNotPageableError,
        bce.UnseekableStreamError,
        bce.InvalidExpressionError,
        bce.WaiterConfigError,
        bce.UnknownClientMethodError,
        bce.InvalidDNSNameError,
        bce.InvalidHostLabelError,
        bce.InvalidS3AddressingStyleError,
        bce.UnsupportedS3ArnError,
        bce.UnsupportedS3ControlArnError,
        bce.UnsupportedOutpostResourceError,
        bce.UnsupportedS3ConfigurationError,
        bce.UnsupportedS3AccesspointConfigurationError,
        bce.UnsupportedS3ControlConfigurationError,
        bce.InvalidRetryConfigurationError,
        bce.InvalidS3UsEast1RegionalEndpointConfigError,
        bce.StubResponseError,
        bce.MD5UnavailableError,
        bce.MissingDependencyException,
        bce.UndefinedModelAttributeError,
        bce.InvalidProxiesConfigError,
        bce.InvalidDefaultsMode,
        bce.AwsChunkedWrapperError,
        bce.InvalidChecksumConfigError,
        bce.UnsupportedServiceProtocolsError,
        s3e.InvalidSubscriberMethodError,
        s3e.S3ValidationError,
    ),
}

TRY_AGAIN_CODES = frozenset(
    {
        "ConditionalRequestConflict",  # 409: another conditional put of this key was under way
        "OperationAborted",  # 409
        "RequestTimeout",  # 400: the body came too slowly
        "IncompleteBody",  # 400
        "BadDigest",  # 400: bytes were mangled on their way
        "InvalidDigest",  # 400
        "XAmzContentSHA256Mismatch",  # 400
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestThrottled",
        "TooManyRequests",
        "RequestLimitExceeded",
    }
)
FULL_CODES = frozenset({"XMinioStorageFull", "QuotaExceeded", "InsufficientStorage"})
CREDENTIALS_CODES = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "XAdminUserNotFound"})
"""Told with another status than 401 or 403; the last is versitygw's 404 for an access key that it does not know."""
NO_BODY = "404"
"""What botocore makes of the answer to a HEAD: a key, a bucket or (versitygw) a user that is not there."""
_NO_RETRY_STATUS = frozenset({501, 505, 507})

_HINTS: dict[type[KompressError], str] = {
    StorageUnavailable: "check that the endpoint runs and can be reached from the pods (DNS, NetworkPolicy); finished work is kept",
    CredentialsRefused: "check credentialsSecret (keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or the role of the pod's service "
    "account, and that they may list, read, write and delete there",
    SpecCannotWork: "check uri, endpoint and region of this place",
    StorageFailure: "free space in the store, or raise its quota",
    BucketMissing: "create the bucket, or correct its name",
    ArtifactMissing: "check the key; it may have been deleted",
    NoConditionalWrites: "use a store that honours If-None-Match and If-Match on PUT",
}


def worth_another_try(error: BaseException | None, parsed: Mapping[str, Any] | None) -> bool:
    """Whether the same request may succeed later: the transport failed, or the server says that it can't just now."""
    if error is not None:
        return isinstance(error, TRANSPORT)
    status, code = _status(parsed or {}), _code(parsed or {})
    if code in FULL_CODES:
        return False
    return code in TRY_AGAIN_CODES or status in (408, 429) or (status >= 500 and status not in _NO_RETRY_STATUS)


def map_error(error: BaseException, doing: str, *, bucket: str) -> KompressError:
    """The kompress error of what boto3 raised while `doing` something (operation, s3://bucket/key and endpoint)."""
    if isinstance(error, KompressError):
        return error
    if isinstance(error, bce.ClientError):
        answered = _kind_of_answer(error.response)
        why = f"there is no bucket {bucket!r}" if answered is BucketMissing else _answer(error)
        return answered(f"can't {doing}: {why}", hint=_hint_of_answer(answered, _code(error.response)))
    if isinstance(error, s3e.RetriesExceededError):
        return map_error(error.last_exception, doing, bucket=bucket)
    kind = known_kind(error)
    if kind is None and isinstance(error, OSError):
        return map_os_error(error, doing)
    # A class that a newer SDK has and KINDS has not: retryable, so that nobody's job ends for good because of it.
    kind = kind or StorageUnavailable
    return kind(f"can't {doing}: {type(error).__name__}: {error}", hint=_HINTS[kind])


def known_kind(error: BaseException) -> type[KompressError] | None:
    """The entry of KINDS that an exception falls under."""
    return next((kind for kind, classes in KINDS.items() if isinstance(error, classes)), None)


def _kind_of_answer(response: Mapping[str, Any]) -> type[KompressError]:
    status, code = _status(response), _code(response)
    if code == "NoSuchBucket":
        return BucketMissing
    if code in FULL_CODES or status == 507:
        return StorageFailure
    if code in ("NoSuchKey", "NoSuchUpload", "NoSuchVersion", NO_BODY):
        return ArtifactMissing
    if code in CREDENTIALS_CODES or status in (401, 403):
        return CredentialsRefused
    if code == "NotImplemented" or status == 501:
        return NoConditionalWrites
    if worth_another_try(None, response):
        return StorageUnavailable
    return SpecCannotWork


def _hint_of_answer(kind: type[KompressError], code: str) -> str:
    if code == "RequestTimeTooSkewed":
        return "set this machine's clock: it differs from the server's by more than 15 minutes"
    if code in ("ObjectParentIsFile", "ExistingObjectIsDirectory"):
        return "an object lies where this place needs a folder: choose another prefix, or remove that object"
    return _HINTS[kind]


def _answer(error: bce.ClientError) -> str:
    status, code = _status(error.response), _code(error.response)
    message = error.response.get("Error", {}).get("Message", "")
    return f"the server says {status} {code}{f' ({message})' if message else ''}"


def _status(response: Mapping[str, Any]) -> int:
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def _code(response: Mapping[str, Any]) -> str:
    return str(response.get("Error", {}).get("Code", ""))
