"""One boundary for the API server's errors: none of the client library's reaches the operator as it is."""

import json

import aiohttp
import pytest
from kubernetes.aio.client import exceptions

from kompress_operator import api


def subclasses(kind: type[BaseException]) -> set[type[BaseException]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


@pytest.mark.parametrize(
    "kind", sorted(subclasses(exceptions.OpenApiException) | subclasses(aiohttp.ClientError), key=str), ids=lambda k: k.__name__
)
def test_every_exception_of_the_libraries_is_mapped(kind: type[BaseException]) -> None:
    assert issubclass(kind, api.FOREIGN)


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", api.Refused),
        (403, "Forbidden", api.Forbidden),
        (404, "NotFound", api.NotFound),
        (409, "AlreadyExists", api.AlreadyExists),
        (409, "Conflict", api.Conflict),
        (413, "RequestEntityTooLarge", api.Refused),
        (422, "Invalid", api.Refused),
        (429, "TooManyRequests", api.Unreachable),
        (500, "InternalError", api.Unreachable),
        (503, "ServiceUnavailable", api.Unreachable),
    ],
)
def test_each_answer_has_its_kind_and_keeps_the_servers_words(status: int, reason: str, kind: type[api.ApiProblem]) -> None:
    problem = api.problem_of(status, json.dumps({"reason": reason, "message": "in plain words"}))
    assert (type(problem), problem.message, problem.status) == (kind, "in plain words", status)


@pytest.mark.parametrize("body", ["<html>bad gateway</html>", "", "[]"])
def test_an_answer_of_something_in_between_is_tried_again(body: str) -> None:
    assert isinstance(api.problem_of(502, body), api.Unreachable)
