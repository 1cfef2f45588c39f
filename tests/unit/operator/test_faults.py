"""Whatever happens, in whatever order: nothing is done twice, nothing is lost, and once the world stands still so does the operator.

The faults are Sieve's three (Sun et al., OSDI 2022): the operator crashes after any of its actions, an event is lost, it reads
something old. The end is Anvil's (Sun et al., OSDI 2024): once spec and faults stand still, the status is right and stays so,
without another write.
"""

import dataclasses
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kompress_api.reasons import Reason
from kompress_api.status import CompressionJobStatus, Phase, StageState
from kompress_operator.observed import Observed
from kompress_operator.reconcile import reconcile
from unit.operator.builders import spec
from unit.operator.world import Crash, Stale, World

DIAMOND = [
    {"name": "adapt", "fineTune": {"strategy": "Full", "epochs": 1}},
    {"name": "left", "from": "adapt", "prune": {"pruningRatio": 0.5}},
    {"name": "right", "from": "adapt", "prune": {"pruningRatio": 0.3}},
    {"name": "soup", "fuse": {"method": "UniformSoup", "models": [{"from": "left"}, {"from": "right"}]}},
]
NAMES = ("preflight", "adapt", "left", "right", "soup", "report")


class FaultyOperator(RuleBasedStateMachine):
    """One job, an operator that is looked at from outside, and everything that can go wrong around it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World({})
        self.old: list[tuple[Observed, int]] = []
        self.best: dict[str, StageState] = {}

    @initialize(parallel=st.integers(1, 2), deadline=st.sampled_from([None, 500]), restarts=st.integers(0, 3))
    def create(self, parallel: int, deadline: int | None, restarts: int) -> None:
        self.world.spec = spec(
            stages=DIAMOND,
            maxParallelStages=parallel,
            activeDeadlineSeconds=deadline,
            restartPolicy={"maxRestarts": restarts, "windowSeconds": 300, "backoffSeconds": 10},
        )

    # the operator

    @rule()
    def run_pass(self) -> None:
        self.remember()
        self.world.run_pass()

    @rule(after=st.integers(0, 4))
    def crash_after_any_action(self, after: int) -> None:
        self.remember()
        try:
            self.world.run_pass(crash_after=after)
        except Crash:
            return

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def read_something_old(self, data: st.DataObject) -> None:
        """A job of an older version, with the attempts of then or of today. Not older than the last time that an attempt went
        away: a leader whose Lease ran out does not act (`Lease.holds`), and no deletion is done within a Lease."""
        observed, version = data.draw(st.sampled_from(self.old[-3:]))
        if data.draw(st.booleans()):
            today, _ = self.world.read()
            observed = dataclasses.replace(observed, merged=today.merged, service=today.service, attempts=today.attempts)
        try:
            self.world.run_pass(seen=(observed, version))
        except Stale:
            return

    @rule(seconds=st.sampled_from([1.0, 12.0, 40.0, 400.0, 1000.0]))
    def an_event_is_lost(self, seconds: float) -> None:
        """Time goes by, and nobody looks."""
        self.world.now += seconds

    # the cluster

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data())
    def an_attempt_ends(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.world.alive))
        how = data.draw(
            st.sampled_from(["succeed", "succeed", "succeed", "fail", "permanent", "interrupted", "preempted", "vanish", "miss"])
        )
        match how:
            case "succeed":
                hits = {"adapt": True} if data.draw(st.booleans()) else {}
                self.world.succeed(attempt.name, **({"hits": hits} if attempt.stage == "preflight" else {}))
            case "fail":
                self.world.fail(attempt.name)
            case "permanent":
                self.world.fail(attempt.name, code=78)
            case "interrupted":
                self.world.fail(attempt.name, code=75, reason="Interrupted", checkpoint_step=data.draw(st.integers(0, 3)))
            case "preempted":
                self.world.disrupt(attempt.name, Reason.PREEMPTED)
            case "vanish":
                if self.world.record_of(attempt) is not None:  # else nobody could know that its number was ever given
                    del self.world.attempts[attempt.name]
                    self.old.clear()
            case "miss":
                self.world.succeed(attempt.name, **({"hit": False} if attempt.stage not in ("preflight", "report") else {}))

    @precondition(lambda self: self.world.whole)
    @rule(data=st.data(), code=st.sampled_from([1, 78]), secondary=st.booleans())
    def the_first_pod_of_a_gang_fails(self, data: st.DataObject, code: int, secondary: bool) -> None:
        self.world.fail_first(data.draw(st.sampled_from(self.world.whole)).name, code, secondary=secondary)

    @precondition(lambda self: self.world.whole)
    @rule(data=st.data())
    def pods_run(self, data: st.DataObject) -> None:
        self.world.start_pods(data.draw(st.sampled_from(self.world.whole)).name)

    @precondition(lambda self: any(a.deleting for a in self.world.attempts.values()))
    @rule()
    def a_deletion_is_done(self) -> None:
        for attempt in [a for a in self.world.attempts.values() if a.deleting is not None]:
            self.world.finish_deletion(attempt.name)
        self.old.clear()

    @rule(suspend=st.booleans())
    def the_user_suspends_or_resumes(self, suspend: bool) -> None:
        if self.world.spec.get("suspend", False) != suspend:
            self.world.set_spec(suspend=suspend)

    # what always holds

    @invariant()
    def no_attempt_was_made_twice(self) -> None:
        assert len(set(self.world.created)) == len(self.world.created)

    @invariant()
    def no_two_attempts_of_a_stage_run(self) -> None:
        stages = [attempt.stage for attempt in self.world.alive]
        assert len(set(stages)) == len(stages)

    @invariant()
    def what_has_ended_stays_so(self) -> None:
        for entry in self.world.status.stages:
            before = self.best.get(entry.name)
            assert before is None or entry.state is before, f"{entry.name}: {before} -> {entry.state}"
            if entry.state.ended:
                self.best[entry.name] = entry.state

    @invariant()
    def numbers_never_repeat(self) -> None:
        for entry in self.world.status.stages:
            numbers = [attempt.attempt for attempt in entry.attempts]
            assert numbers == sorted(set(numbers))
            assert entry.attempts_cut + len(entry.attempts) <= (numbers[-1] if numbers else 0)

    @invariant()
    def the_budget_is_kept(self) -> None:
        limit = self.world.spec["restartPolicy"]["maxRestarts"] if self.world.spec else 0
        assert all(len(entry.spent_restarts) <= limit for entry in self.world.status.stages)

    @invariant()
    def what_was_found_gone_is_not_looked_for_again(self) -> None:
        for entry in self.world.status.stages:
            missed = False
            for attempt in entry.attempts:
                assert not (missed and attempt.reuse)
                missed = missed or attempt.outcome == Reason.REUSE_MISSED

    @invariant()
    def no_stage_ran_before_its_inputs(self) -> None:
        done = {entry.name for entry in self.world.status.stages if entry.state is StageState.SUCCEEDED}
        known = {entry.name: entry for entry in self.world.status.stages}
        needs = {"adapt": {"preflight"}, "left": {"adapt"}, "right": {"adapt"}, "soup": {"left", "right"}}
        for stage, inputs in needs.items():
            if stage in known and known[stage].attempts:
                assert inputs <= done

    @invariant()
    def status_and_observation_survive_json(self) -> None:
        observed, _ = self.world.read()
        assert Observed.from_json(observed.to_json()) == observed
        assert CompressionJobStatus.model_validate(self.world.status.dump()) == self.world.status

    @invariant()
    def nothing_changes_before_the_operator_wants_to_look_again(self) -> None:
        """The decision just before `requeue_after` is over is the one of now: nothing is missed in between."""
        observed, _ = self.world.read()
        first = reconcile(observed, self.world.now)
        if first.actions or first.status != observed.status:
            return
        later = min(first.requeue_after if first.requeue_after is not None else 10_000.0, 10_000.0)
        second = reconcile(observed, self.world.now + later * 0.99)
        assert (second.actions, second.status) == (first.actions, first.status)

    def teardown(self) -> None:
        """Faults end, the user wants it to run, every pod succeeds, but for peers of failed ones, which never end by themselves: the
        job must end, and then nothing is written.
        """
        if not self.world.spec:
            return
        if self.world.spec.get("suspend"):
            self.world.set_spec(suspend=False)
        for _ in range(200):
            before = self.world.writes
            decision = self.world.run_pass()
            for attempt in list(self.world.attempts.values()):
                if attempt.deleting is not None:
                    self.world.finish_deletion(attempt.name)
                elif not attempt.ended and not attempt.failed_pods:
                    self.world.succeed(attempt.name)
            if self.world.status.phase.finished and self.world.writes == before and not self.world.alive:
                break
            self.world.now += decision.requeue_after or 1.0
        assert self.world.status.phase.finished, self.world.status.phase
        self.status_is_right()
        quiet = self.world.writes
        for seconds in (0.0, 1.0, 1000.0):
            self.world.now += seconds
            self.world.run_pass()
        assert self.world.writes == quiet, "a job that has ended is written to"

    def status_is_right(self) -> None:
        status = self.world.status
        states = {entry.name: entry.state for entry in status.stages}
        assert all(state.ended for state in states.values())
        conditions = {condition.type: condition for condition in status.conditions}
        if status.phase is Phase.COMPLETE:
            assert set(states.values()) == {StageState.SUCCEEDED}
            assert conditions["Complete"].status == "True" and "Failed" not in conditions
        else:
            assert conditions["Failed"].status == "True" and conditions["Failed"].reason and conditions["Failed"].message
            assert any(state is not StageState.SUCCEEDED for state in states.values())
        assert conditions["Running"].status == "False"
        spent = sum(attempt.spent_restart for entry in status.stages for attempt in entry.attempts)
        assert status.restarts >= spent

    def remember(self) -> None:
        self.old.append(self.world.read())


def profile(**kwargs: Any) -> settings:
    return settings(max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), **kwargs)


TestFaultyOperator = FaultyOperator.TestCase
TestFaultyOperator.settings = profile()
