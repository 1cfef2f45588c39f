"""The API server: JSON in, JSON out, and the one place where foreign errors become ours.

    ApiProblem
    ├── NotFound        404  the object is gone
    ├── Conflict        409  what was read is stale: observe again
    ├── AlreadyExists   409  the name is taken
    ├── Forbidden       403  rights, a quota, a namespace that ends: it may pass
    ├── Refused         400, 405, 413, 422  the object itself is wrong: another try ends the same way
    └── Unreachable     everything else, timeouts included: try again later

kubernetes.aio supplies credentials, TLS and URLs; its typed models are left aside, as they drop what they don't know.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import OpenApiException

Json = dict[str, Any]
APPLY = "application/apply-patch+yaml"
PAGE = 500
"""Objects of one page of a list."""


class ApiProblem(Exception):
    """A request that did not do what it should; `message` is the API server's own where there is one."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class NotFound(ApiProblem):
    pass


class Conflict(ApiProblem):
    pass


class AlreadyExists(ApiProblem):
    pass


class Forbidden(ApiProblem):
    pass


class Refused(ApiProblem):
    pass


class Unreachable(ApiProblem):
    pass


KINDS: dict[int, type[ApiProblem]] = {400: Refused, 403: Forbidden, 404: NotFound, 405: Refused, 409: Conflict, 413: Refused, 422: Refused}
FOREIGN: tuple[type[Exception], ...] = (OpenApiException, aiohttp.ClientError, TimeoutError, OSError)
"""What the client library raises; all of it becomes an ApiProblem."""


def problem_of(status: int, body: str) -> ApiProblem:
    """The problem that an answer of the API server tells of."""
    try:
        answer = json.loads(body)
        reason, message = str(answer.get("reason", "")), str(answer.get("message", body))
    except (ValueError, AttributeError):
        reason, message = "", body[:500]
    kind = AlreadyExists if reason == "AlreadyExists" else KINDS.get(status, Unreachable)
    return kind(message, status)


class Api:
    """Requests of one operator. Paths are the API's own, such as `/apis/batch/v1/namespaces/ml/jobs`."""

    def __init__(self, connection: client.ApiClient, timeout: float) -> None:
        self.connection = connection
        self.timeout = timeout

    async def get(self, path: str, **query: str | int) -> Json:
        """One object."""
        return await self._call("GET", path, query)

    async def pages(self, path: str, **query: str | int) -> AsyncIterator[Json]:
        """Every object of a list."""
        token = ""
        while True:
            page = await self.get(path, limit=PAGE, **query, **({"continue": token} if token else {}))
            for item in page.get("items", []):
                yield item
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return

    async def create(self, path: str, body: Mapping[str, Any]) -> Json:
        """A new object; unknown fields are refused, never dropped in silence."""
        return await self._call("POST", path, {"fieldValidation": "Strict"}, body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> Json:
        """The whole object anew; Conflict where its resourceVersion is not the present one."""
        return await self._call("PUT", path, {}, body)

    async def apply(self, path: str, body: Mapping[str, Any], manager: str) -> Json:
        """Server-side apply."""
        return await self._call("PATCH", path, {"fieldManager": manager, "force": "true"}, body, APPLY)

    async def delete(self, path: str, body: Mapping[str, Any]) -> Json:
        """`body` is a DeleteOptions."""
        return await self._call("DELETE", path, {}, body)

    async def _call(
        self, method: str, path: str, query: Mapping[str, str | int], body: Mapping[str, Any] | None = None, kind: str = "application/json"
    ) -> Json:
        try:
            request = await self.connection.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Content-Type": kind, "Accept": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = await self.connection.call_api(*request, _request_timeout=self.timeout)
            raw: bytes = await answer.read() or b""  # type: ignore[no-untyped-call]
        except FOREIGN as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__}: {error}") from error
        if not 200 <= answer.status < 300:
            raise problem_of(answer.status, raw.decode(errors="replace"))
        return json.loads(raw) if raw else {}
