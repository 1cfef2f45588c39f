"""What `kubectl describe` tells, once."""

from kompress_operator.events import News, build_event, news
from kompress_operator.observed import Observed
from kompress_operator.reconcile import reconcile
from kompress_operator.translation import Key
from unit.operator.builders import NOW, attempt, complete, crashed, entry, failed, observed, running, succeeded

KEY = Key("ml", "flowers", "u1")


def told(seen: Observed) -> list[News]:
    return list(news(seen.status, reconcile(seen, NOW).status))


def test_the_end_of_an_attempt_with_pod_node_and_cause() -> None:
    seen = observed(failed("adapt", 1, crashed(1)), stages=(running("adapt"),))
    assert told(seen) == [News("adapt-1", "ValueError", "adapt, attempt 1 (pod-1 on node1): boom", True)]


def test_the_end_of_the_job() -> None:
    reported = complete("report", report="s3://models/report.html")
    seen = observed(reported, stages=(succeeded("adapt"), succeeded("slim"), running("report")))
    assert [(piece.about, piece.reason, piece.warning) for piece in told(seen)] == [
        ("report-1", "Succeeded", False),
        ("end", "GoalsMet", False),
    ]


def test_what_was_told_is_not_told_again() -> None:
    seen = observed(stages=(entry("adapt", "BackingOff", attempt(1, "ValueError"), retry_at="2030-01-01T00:00:00Z"),))
    assert told(seen) == []


def test_the_same_news_has_the_same_name_and_another_job_another() -> None:
    piece = News("adapt-1", "ValueError", "boom", True)
    name = build_event(KEY, "operator-0", piece, "")["metadata"]["name"]
    assert name == build_event(KEY, "operator-1", piece, "later")["metadata"]["name"]
    assert name != build_event(Key("ml", "flowers", "u2"), "operator-0", piece, "")["metadata"]["name"]
