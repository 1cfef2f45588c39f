"""Pods are asked only where they can tell something."""

from typing import Any

import pytest

from kompress_api.status import CompressionJobStatus
from kompress_operator.observe import needs_look
from kompress_operator.observed import ObservedAttempt
from unit.operator.builders import NOW, attempt, entry


@pytest.mark.parametrize(
    ("fields", "outcome", "look"),
    [
        ({"ready": 2}, "", True),
        ({"queued": True, "created": NOW - 900}, "", False),
        ({"ready": 2}, "Succeeded", True),
        ({"complete": True}, "Succeeded", False),
        ({"failed": True}, "", True),
        ({"failed": True}, "ValueError", False),
        ({"deleting": NOW}, "Cancelled", True),
    ],
)
def test_pods_are_listed_only_where_they_can_tell_something(fields: dict[str, Any], outcome: str, look: bool) -> None:
    seen = ObservedAttempt(**({"name": "x", "stage": "adapt", "attempt": 1, "uid": "j", "created": NOW, "nodes": 2} | fields))
    status = CompressionJobStatus(stages=[entry("adapt", "Running", attempt(1, outcome))])
    assert needs_look(seen, status) is look
