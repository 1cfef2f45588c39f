"""The client of an S3 place: whose keys it carries, and how it tries again.

Retries are ours and counted in seconds, not in attempts: an outage of some minutes costs nothing but time. They sit inside
botocore (its event `needs-retry`), so every request of a transfer, each part of a multipart upload too, waits for itself.
"""

import logging
import random
import time
from typing import Any

import botocore.config
from botocore.exceptions import BotoCoreError, ClientError

from kompress_api.errors import InvalidManifest, KompressError
from kompress_jobs.storage.credentials import aws_session
from kompress_jobs.storage.s3_errors import map_error, worth_another_try

log = logging.getLogger(__name__)

CONCURRENCY = 8
"""Requests of a transfer at a time: enough to fill a 10 Gbit/s link."""
MAX_DELAY = 15.0
"""Longest wait between two tries, seconds; the mean is half of it."""
MAX_TRIES_OF_A_BAD_REQUEST = 5
"""A 400 that says the body was mangled on its way; oftener than this it was not the way."""


class Backoff:
    """When to try again: exponential with full jitter, until `patience` seconds after the first failure."""

    def __init__(self, patience: float) -> None:
        self.deadline = time.monotonic() + patience
        self.tries = 0

    def delay(self) -> float | None:
        """Seconds to wait now; None: patience is over."""
        left = self.deadline - time.monotonic()
        self.tries += 1
        if left <= 0:
            return None
        return min(left, random.uniform(0.05, min(MAX_DELAY, 0.25 * 2**self.tries)))


class Patience:
    """The answer to botocore's `needs-retry`."""

    def __init__(self, bucket: str, seconds: float) -> None:
        self.bucket, self.seconds = bucket, seconds

    def __call__(
        self,
        *,
        attempts: int,
        operation: Any,
        request_dict: dict[str, Any],
        response: tuple[Any, dict[str, Any]] | None = None,
        caught_exception: Exception | None = None,
        **_: Any,
    ) -> float | None:
        """Seconds to wait before the next try, None for no more.

        Raises StorageUnavailable once patience is over: as our own error it passes s3transfer, which would try a lost
        answer again by its own count.
        """
        if not worth_another_try(caught_exception, response and response[1]):
            return None
        if response is not None and response[0].status_code == 400 and attempts >= MAX_TRIES_OF_A_BAD_REQUEST:
            return None
        backoff: Backoff = request_dict["context"].setdefault("kompress_backoff", Backoff(self.seconds))
        delay = backoff.delay()
        problem = caught_exception or ClientError(response[1] if response else {}, operation.name)
        doing = f"{operation.name} s3://{self.bucket} ({request_dict['url'].partition('?')[0]})"
        if delay is None:
            raise map_error(problem, f"{doing}, tried {attempts} times in {self.seconds:.0f} s", bucket=self.bucket) from problem
        log.warning("%s: %s: again in %.1f s", doing, problem, delay)
        return delay


def build_client(role: str, endpoint: str | None, region: str | None, secret: str | None, *, bucket: str, patience: float) -> Any:
    """A boto3-like S3 client; raises CredentialsRefused, SpecCannotWork for an endpoint or region that can't be one."""
    config = botocore.config.Config(
        connect_timeout=min(10.0, max(1.0, patience / 3)),
        read_timeout=min(60.0, max(1.0, patience)),
        max_pool_connections=2 * CONCURRENCY,
        retries={"total_max_attempts": 1, "mode": "standard"},
        tcp_keepalive=True,
        user_agent_extra="kompress",
    )
    try:
        client = aws_session(role, secret).create_client("s3", region_name=region, endpoint_url=endpoint, config=config)
    except KompressError:
        raise
    except BotoCoreError as error:
        raise map_error(error, f"reach s3://{bucket}", bucket=bucket) from error
    except ValueError as error:
        raise InvalidManifest(
            f"{endpoint or 'the endpoint of the environment'} can't be the endpoint of an S3 server: {error}",
            hint="write it with its scheme, such as http://minio.ml:9000",
            field=f"spec.{role}.endpoint",
        ) from error
    client.meta.events.register("needs-retry.s3", Patience(bucket, patience), unique_id="kompress-patience")
    return client
