"""However much goes wrong, the status can be written, and what matters most is still in it."""

from kompress_api.goals import GoalResult
from kompress_api.names import MAX_GOALS, MAX_RESTARTS, MAX_STAGES
from kompress_api.status import CompressionJobStatus, Condition, PlanStatus, StageResult
from kompress_operator.limits import MAX_STATUS_BYTES, clip, cut, fit
from kompress_operator.times import rfc3339
from unit.operator.builders import NOW, attempt, entry


def test_the_first_and_the_newest_ten_attempts_stay() -> None:
    many = [*(attempt(number, "ValueError") for number in range(1, 15)), attempt(15)]
    found = cut(entry("adapt", "Running").model_copy(update={"attempts": many}))
    assert [a.attempt for a in found.attempts] == [1, *range(6, 16)]
    assert found.attempts_cut == 4
    assert cut(found) == found


def test_messages_are_cut_by_bytes_the_newest_least() -> None:
    long = "ä" * 2000
    found = cut(entry("adapt", "Running", attempt(1, "X", message=long[:1000]), attempt(2, "X", message=long[:1000])))
    assert [len(a.message.encode()) for a in found.attempts] == [256 - 1, 1024 - 1]
    assert clip("short", 1024) == "short"


def test_a_trace_keeps_its_words_and_loses_its_control_characters() -> None:
    assert clip("boom\n  File \x1b[31mx\x1b[0m", 100) == "boom\n  File  [31mx [0m"


def largest() -> CompressionJobStatus:
    """Every list full, every text at its limit; a stage's result is bounded by its termination message of 3,500 bytes."""
    long = '"' * 2000  # JSON doubles a quotation mark

    def failure(number: int) -> object:
        where = {"pod": "p" * 63, "node": "n" * 253, "rank": 9999, "exit_code": 137, "checkpoint_step": 10**9}
        return attempt(number, "R" * 63, message=long[:1024], spent_restart=True, disruption="Preempted", **where)

    names = [f"{i:x}".rjust(16, "a") for i in range(MAX_STAGES + 2)]
    figures = {f"baseline.latencyP50Ms@TorchScript/cpu{i}": 1234.5678901234 for i in range(40)}
    result = StageResult(artifact="s3://" + "a" * 500, digest="d" * 71, key="k" * 71, metrics=figures, mlflow_run_id="m" * 32)
    spent = [int(NOW)] * MAX_RESTARTS
    stages = [entry(name, "Failed", *(failure(10_000 + i) for i in range(11)), result=result, spent_restarts=spent) for name in names]  # type: ignore[arg-type]
    goal = GoalResult(
        metric="throughputPerSecond",
        bound="b" * 30,
        stage=names[0],
        value=1.1,
        baseline=1.1,
        met=False,
        loss=dict.fromkeys(names, -0.123456789),
    )
    kinds = ("Running", "Suspended", "Complete", "Failed")
    conditions = [
        Condition(type=kind, status="True", reason="R" * 63, message=long[:1024], last_transition_time=rfc3339(NOW)) for kind in kinds
    ]
    plan = PlanStatus(
        uri="s3://" + "p" * 1000, keys=dict.fromkeys(names[:MAX_STAGES], "f" * 16), hits=dict.fromkeys(names[:MAX_STAGES], True)
    )
    return CompressionJobStatus(stages=stages, goals=[goal] * MAX_GOALS, conditions=conditions, plan=plan, mlflow_run_url="u" * 1400)


def test_the_largest_possible_status_fits_and_keeps_its_newest_messages() -> None:
    whole = largest()
    assert len(whole.model_dump_json(by_alias=True)) > MAX_STATUS_BYTES
    found = fit(whole)
    assert len(found.model_dump_json(by_alias=True, exclude_none=True).encode()) <= MAX_STATUS_BYTES
    assert all(len(stage.attempts[-1].message) > 1000 for stage in found.stages)
    assert fit(found) == found  # what was cut is not cut again


def test_an_ordinary_status_is_left_alone() -> None:
    status = CompressionJobStatus(stages=[entry("adapt", "Running", attempt(1, "ValueError", message="x" * 256), attempt(2))])
    assert fit(status) == status
