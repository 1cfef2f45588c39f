"""A job is complete when every goal is met; a missed one is named with the stage that lost most."""

from typing import Any

import pytest

from kompress_operator.reconcile import reconcile
from unit.operator.builders import NOW, complete, observed, running, succeeded

STAGES = [
    {"name": "adapt", "fineTune": {"strategy": "Full", "epochs": 1}},
    {"name": "slim", "prune": {"pruningRatio": 0.5}},
    {"name": "ship", "export": {"formats": [{"type": "ONNX"}], "targets": [{"device": "CPU"}]}},
]


def end(goals: list[dict[str, Any]], **figures: float) -> tuple[str, str, str]:
    stages = (succeeded("adapt", accuracy=0.98, modelSizeBytes=40e6), succeeded("slim", accuracy=0.95), succeeded("ship", **figures))
    reported = complete("report", report="s3://models/report.html")
    decision = reconcile(observed(reported, stages=(*stages, running("report")), spec={"stages": STAGES, "goals": goals}), NOW)
    last = decision.status.conditions[-1]
    return last.type, last.reason, last.message


@pytest.mark.parametrize(
    ("goals", "figures", "kind", "reason"),
    [
        ([], {}, "Complete", "GoalsMet"),
        ([{"metric": "accuracy", "maxDegradation": 0.05}], {"accuracy": 0.95}, "Complete", "GoalsMet"),
        ([{"metric": "accuracy", "maxDegradation": 0.01}], {"accuracy": 0.95}, "Failed", "GoalMissed"),
        ([{"metric": "modelSizeBytes", "atMost": 1e6}], {}, "Failed", "GoalMissed"),
        ([{"metric": "latencyP50Ms", "minImprovement": 2}], {"latencyP50Ms": 4.0, "baseline.latencyP50Ms": 6.0}, "Failed", "NoSpeedup"),
        (
            [{"metric": "latencyP50Ms", "atMost": 1}, {"metric": "accuracy", "atLeast": 0.99}],
            {"latencyP50Ms": 4.0, "accuracy": 0.9},
            "Failed",
            "GoalMissed",
        ),
    ],
)
def test_goals_decide(goals: list[dict[str, Any]], figures: dict[str, float], kind: str, reason: str) -> None:
    assert end(goals, **figures)[:2] == (kind, reason)


def test_a_missed_goal_names_value_bound_and_the_stage_that_lost_most() -> None:
    message = end([{"metric": "accuracy", "maxDegradation": 0.01}], accuracy=0.95)[2]
    assert message == "accuracy of ship is 0.95 (baseline 0.98), asked loses <= 0.01; largest change at slim: -0.03"
