"""The report comes last, whatever happened, and can't hold the job up for ever."""

from kompress_api.status import Phase
from kompress_operator.actions import CreateAttempt
from kompress_operator.reconcile import reconcile
from unit.operator.builders import NOW, actions, attempt, complete, crashed, entry, failed, job, observed, running, succeeded

DONE = (succeeded("adapt"), succeeded("slim"))


def failure(stages: tuple[object, ...], *jobs: object, now: float = NOW, **fields: object) -> tuple[str, str]:
    decision = reconcile(observed(*jobs, stages=stages, **fields), now)  # type: ignore[arg-type]
    found = next((c for c in decision.status.conditions if c.type == "Failed"), None)
    return decision.status.phase, found.reason if found else ""


def test_it_starts_when_all_stages_are_done() -> None:
    decision = reconcile(observed(stages=DONE), NOW)
    assert (decision.actions, decision.status.phase) == ((CreateAttempt("report", 1),), Phase.REPORTING)


def test_it_starts_after_a_failure_too() -> None:
    stages = (entry("adapt", "Failed", attempt(1, "MethodRefused", exit_code=78)), entry("slim", "Skipped"))
    assert actions(observed(stages=stages)) == [CreateAttempt("report", 1)]


def test_a_report_that_fails_for_good_spoils_a_good_job() -> None:
    assert failure((*DONE, running("report")), failed("report", 1, crashed(code=78))) == ("Failed", "ReportFailed")


def test_a_failed_job_keeps_its_own_reason() -> None:
    stages = (entry("adapt", "Failed", attempt(1, "MethodRefused", exit_code=78)), entry("slim", "Skipped"), running("report"))
    assert failure(stages, failed("report", 1, crashed(code=78))) == ("Failed", "StageFailed")
    assert failure(stages, complete("report", report="s3://models/report.html")) == ("Failed", "StageFailed")


def test_it_has_fifteen_minutes_in_all() -> None:
    first = attempt(1, "ValueError", ago=2000, ended_at="2027-01-15T07:31:40Z")  # 300 s
    stages = (*DONE, entry("report", "Running", first, attempt(2, ago=0)))
    assert failure(stages, job("report", 2), now=NOW + 599) == ("Reporting", "")
    assert failure(stages, job("report", 2), now=NOW + 600) == ("Failed", "ReportFailed")
