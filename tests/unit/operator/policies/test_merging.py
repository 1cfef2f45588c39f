"""A job that can't be merged into one that runs fails with the field's path, before anything is made."""

import pytest

from kompress_api.status import Phase
from kompress_operator.observed import Observed, ObservedRuntime
from kompress_operator.reconcile import reconcile
from unit.operator.builders import NOW, fresh, observed

AFTER_GRACE = NOW + 6


def failure(seen: Observed, now: float = AFTER_GRACE) -> tuple[str, str, str]:
    decision = reconcile(seen, now)
    found = next((c for c in decision.status.conditions if c.type == "Failed"), None)
    assert decision.actions == ()
    return decision.status.phase, found.reason if found else "", found.message if found else ""


@pytest.mark.parametrize(
    ("fields", "reason", "path"),
    [
        ({"output": None}, "NoOutput", "spec.output"),
        ({"runtime": None}, "NoOutput", "spec.runtime.image"),
        ({"output": {"uri": "file:///models"}}, "NoOutput", "spec.output.uri"),
        ({"runtimeRef": {"name": "a100"}}, "RuntimeNotFound", "spec.runtimeRef.name"),
        ({"unheardOf": 1}, "InvalidSpec", "spec.unheardOf"),
        ({"model": {"source": "torchvision://resnet18", "arguments": {"text": "x" * 40_000}}}, "SpecTooLarge", "limit"),
    ],
)
def test_each_is_named(fields: dict[str, object], reason: str, path: str) -> None:
    phase, found, message = failure(fresh(spec=fields))
    assert (phase, found) == (Phase.FAILED, reason)
    assert path in message


def test_the_runtime_fills_in_what_the_job_leaves_open() -> None:
    runtime = ObservedRuntime(name="default", spec={"output": {"uri": "s3://platform/models"}})
    decision = reconcile(fresh(spec={"output": None}, runtime=runtime), NOW)
    assert decision.actions[0].data["output"] == {"uri": "s3://platform/models"}  # type: ignore[union-attr]


def test_a_runtime_that_is_applied_a_moment_later_is_waited_for() -> None:
    waiting = fresh(spec={"runtimeRef": {"name": "a100"}})
    assert failure(waiting, NOW + 1)[:2] == (Phase.PENDING, "")
    assert reconcile(waiting, NOW + 1).requeue_after == 4


def test_why_a_runtime_may_not_be_read_is_said() -> None:
    refused = ObservedRuntime(name="a100", refused="installed without that right")
    assert "installed without that right" in failure(fresh(spec={"runtimeRef": {"name": "a100"}}, runtime=refused))[2]


def test_a_laptop_may_use_its_own_files() -> None:
    assert reconcile(fresh(spec={"output": {"uri": "file:///models"}}, local_files=True), NOW).actions != ()


def test_a_spec_that_was_fixed_is_not_merged_again() -> None:
    """Someone edits the manifest of a running job, or the operator is upgraded: what runs goes on."""
    seen = observed()
    edited = Observed(**{**vars(seen), "job": type(seen.job)(**{**vars(seen.job), "spec": {"nonsense": True}})})
    assert reconcile(edited, NOW).status.phase is Phase.RUNNING
