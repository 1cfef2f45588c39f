"""Stages start when their inputs are there, in the order of the manifest, as many at once as is allowed."""

import dataclasses

from kompress_operator.actions import CreateAttempt, CreateRevision, CreateService
from kompress_operator.reconcile import reconcile
from kompress_operator.times import rfc3339
from unit.operator.builders import NOW, actions, attempt, complete, entry, fresh, job, observed, running, succeeded

DIAMOND = [
    {"name": "adapt", "fineTune": {"strategy": "Full", "epochs": 1}},
    {"name": "left", "from": "adapt", "prune": {"pruningRatio": 0.5}},
    {"name": "right", "from": "adapt", "prune": {"pruningRatio": 0.3}},
    {"name": "soup", "fuse": {"method": "UniformSoup", "models": [{"from": "left"}, {"from": "right"}]}},
]


def test_a_new_job_fixes_its_spec_and_starts_with_the_preflight() -> None:
    revision, service, start = actions(fresh())
    assert isinstance(revision, CreateRevision)
    assert revision.digest == reconcile(fresh(), NOW).status.spec_digest
    assert [service, start] == [CreateService("flowers"), CreateAttempt("preflight", 1)]


def test_nothing_starts_while_the_preflight_runs() -> None:
    assert actions(observed(job("preflight"), stages=(running("preflight"),))) == []


def test_branches_run_one_after_the_other_by_default() -> None:
    assert actions(observed(stages=(succeeded("adapt"),), spec={"stages": DIAMOND})) == [CreateAttempt("left", 1)]


def test_or_at_once_where_that_is_allowed() -> None:
    seen = observed(stages=(succeeded("adapt"),), spec={"stages": DIAMOND, "maxParallelStages": 2})
    assert actions(seen) == [CreateAttempt("left", 1), CreateAttempt("right", 1)]


def test_a_join_waits_for_all_its_inputs() -> None:
    stages = (succeeded("adapt"), succeeded("left"), running("right"))
    assert actions(observed(job("right"), stages=stages, spec={"stages": DIAMOND, "maxParallelStages": 4})) == []
    stages = (succeeded("adapt"), succeeded("left"), succeeded("right"))
    assert actions(observed(stages=stages, spec={"stages": DIAMOND})) == [CreateAttempt("soup", 1)]


def test_a_stage_that_backs_off_does_not_hold_up_another_branch() -> None:
    stages = (succeeded("adapt"), entry("left", "BackingOff", attempt(1, "ValueError"), retry_at=rfc3339(NOW + 60)))
    assert actions(observed(stages=stages, spec={"stages": DIAMOND})) == [CreateAttempt("right", 1)]


def test_an_attempt_that_nobody_recorded_is_adopted_not_repeated() -> None:
    """The operator died between creating the Job and writing the status."""
    seen = observed(job("adapt"))
    decision = reconcile(seen, NOW)
    stage = decision.status.stage("adapt")
    assert stage is not None
    assert (decision.actions, [a.attempt for a in stage.attempts], stage.state) == ((), [1], "Running")


def test_a_service_that_someone_deleted_is_made_again_with_the_next_stage() -> None:
    assert actions(observed(service=False)) == [CreateService("flowers"), CreateAttempt("adapt", 1)]


def test_what_rests_on_an_outcome_starts_once_the_outcome_is_written() -> None:
    """The status that was read may be out of date: its stage was suspended meanwhile, and the write is refused; a pod would run already."""
    seen = observed(complete("adapt"), stages=(running("adapt"),))
    first = reconcile(seen, NOW)
    assert (first.actions, first.requeue_after) == ((), 0)
    written = dataclasses.replace(seen, status=first.status)
    assert reconcile(written, NOW).actions == (CreateAttempt("slim", 1),)
