"""What a user sees of a run: exit codes, the table, and lines of progress where there is no terminal."""

import io

import pytest
from rich.console import Console

from kompress_api.goals import GoalResult
from kompress_api.status import Attempt, CompressionJobStatus, Condition, Phase, StageResult, StageState, StageStatus
from kompress_operator.cli.exits import exit_of
from kompress_operator.cli.progress import LiveProgress
from kompress_operator.cli.tables import goals_table, stages_table
from kompress_operator.local.backend import Update

MOMENT = "2026-01-01T00:00:00Z"


def status(phase: Phase, reason: str = "") -> CompressionJobStatus:
    conditions = [Condition(type="Failed", status="True", reason=reason, last_transition_time=MOMENT)] if reason else []
    return CompressionJobStatus(phase=phase, conditions=conditions)


@pytest.mark.parametrize(
    ("phase", "reason", "interrupted", "code"),
    [
        (Phase.COMPLETE, "", False, 0),
        (Phase.COMPLETE, "", True, 0),
        (Phase.FAILED, "StageFailed", False, 1),
        (Phase.FAILED, "PreflightFailed", True, 1),
        (Phase.FAILED, "GoalMissed", False, 3),
        (Phase.FAILED, "NoSpeedup", False, 3),
        (Phase.SUSPENDED, "", True, 130),
        (Phase.SUSPENDED, "", False, 0),
    ],
)
def test_the_exit_code_says_what_became_of_it(phase: Phase, reason: str, interrupted: bool, code: int) -> None:
    assert exit_of(status(phase, reason), interrupted=interrupted) == code


def shown(printable: object) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=200).print(printable)
    return [" ".join(line.split()) for line in text.getvalue().splitlines() if line.strip()]


def result(reused: bool = False, **metrics: float) -> StageResult:
    return StageResult(artifact="file:///a", metrics=metrics, reused=reused)


def test_the_table_shows_every_stage_with_its_figures() -> None:
    figures = {"accuracy": 0.98123, "recall": 0.98, "parameters": 11181642.0, "macs": 3.7e7, "modelSizeBytes": 44726568.0}
    own = figures | {f"source.{name}": value for name, value in figures.items()}
    stages = [
        StageStatus(name="preflight", state=StageState.SUCCEEDED),
        StageStatus(name="adapt", state=StageState.SUCCEEDED, result=result(reused=True, **own)),
        StageStatus(name="ship", state=StageState.SUCCEEDED, result=result(accuracy=1.0, latencyP50Ms=0.1234, latencyP99Ms=0.2)),
        StageStatus(name="report", state=StageState.SUCCEEDED),
    ]
    assert shown(stages_table(CompressionJobStatus(stages=stages)))[2:] == [
        "source 0.9812 0.98 11,181,642 37,000,000 44,726,568",
        "adapt Reused 0.9812 0.98 11,181,642 37,000,000 44,726,568",
        "ship Succeeded 1 0.1234 0.2",
    ]


def test_the_table_of_a_recogniser_shows_words_and_characters_in_place_of_accuracy() -> None:
    own = {"wer": 0.12, "cer": 0.034, "parameters": 2e5}
    stages = [StageStatus(name="adapt", state=StageState.SUCCEEDED, result=result(**own, **{"source.wer": 1.0}))]
    found = shown(stages_table(CompressionJobStatus(stages=stages)))
    assert found[0].startswith("stage state WER CER parameters")
    assert found[2:] == ["source 1", "adapt Succeeded 0.12 0.034 200,000"]


def test_every_goal_is_met_or_missed() -> None:
    goals = [
        GoalResult(metric="accuracy", bound="loses <= 0.01", stage="ship", value=0.97, baseline=0.975, met=True),
        GoalResult(metric="latencyP50Ms", bound=">= 5 x better", stage="ship", met=False),
    ]
    assert shown(goals_table(goals))[2:] == [
        "accuracy ship loses <= 0.01 0.97 0.975 met",
        "latencyP50Ms ship >= 5 x better missed",
    ]


def test_progress_outside_of_a_terminal_is_a_line_for_each_change() -> None:
    text = io.StringIO()
    attempt = Attempt(attempt=1, started_at=MOMENT)
    failed = attempt.model_copy(update={"outcome": "OOMKilled", "message": "more than its limit\ntrace"})
    states = [
        StageStatus(name="adapt"),
        StageStatus(name="adapt", state=StageState.RUNNING, attempts=[attempt]),
        StageStatus(name="adapt", state=StageState.RUNNING, attempts=[attempt]),
        StageStatus(name="adapt", state=StageState.BACKING_OFF, attempts=[failed], retry_at=MOMENT),
        StageStatus(name="adapt", state=StageState.RUNNING, attempts=[failed, attempt.model_copy(update={"attempt": 2, "reuse": True})]),
        StageStatus(name="adapt", state=StageState.SUCCEEDED, result=result(reused=True)),
    ]
    events = (("adapt", {"type": "warning", "text": "[2] files"}), ("adapt", {"type": "progress", "done": 1, "total": 2, "text": "epoch"}))
    with LiveProgress(CompressionJobStatus(), Console(file=text, width=200)) as progress:
        for entry in states:
            progress.update(Update(CompressionJobStatus(stages=[entry])))
        progress.update(Update(CompressionJobStatus(stages=states[-1:]), events))
    assert text.getvalue().splitlines() == [
        "adapt: running (attempt 1)",
        f"adapt: OOMKilled, next attempt at {MOMENT}: more than its limit",
        "adapt: running (attempt 2 after OOMKilled, verifying what is there)",
        "adapt: reused",
        "adapt: warning: [2] files",
    ]
