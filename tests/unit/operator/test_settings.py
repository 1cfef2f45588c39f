"""Every promised default of the operator, and what a wrong value is answered with."""

import dataclasses

import pytest

from kompress_operator.settings import InvalidSetting, Settings


def test_every_promised_default() -> None:
    assert dataclasses.asdict(Settings.from_environment({"KOMPRESS_POD_NAME": "pod-1"})) == {
        "watch_namespaces": (),
        "namespace": "default",
        "lease_name": "kompress",
        "pod_name": "pod-1",
        "lease_seconds": 15,
        "renew_seconds": 10,
        "retry_seconds": 2,
        "workers": 8,
        "resync_seconds": 300,
        "request_seconds": 30,
        "watch_seconds": 300,
        "deaf_seconds": 120,
        "backoff_seconds": 1.0,
        "max_backoff_seconds": 60.0,
        "health_port": 8080,
        "metrics_port": 9090,
        "log_level": "INFO",
    }


def test_namespaces_are_separated_by_commas() -> None:
    assert Settings.from_environment({"KOMPRESS_WATCH_NAMESPACES": "a, b,"}).watch_namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("name", "value"),
    [("KOMPRESS_WORKERS", "many"), ("KOMPRESS_WORKERS", "0"), ("KOMPRESS_WORKERS", "2.5"), ("KOMPRESS_BACKOFF_SECONDS", "-1")],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=f"{name} is '{value}': expected .* above 0"):
        Settings.from_environment({name: value})


def test_a_lease_must_outlast_its_renewal() -> None:
    with pytest.raises(InvalidSetting, match="KOMPRESS_LEASE_SECONDS"):
        Settings.from_environment({"KOMPRESS_LEASE_SECONDS": "10"})


def test_an_unknown_log_level_is_named() -> None:
    with pytest.raises(InvalidSetting, match="KOMPRESS_LOG_LEVEL is 'LOUD'"):
        Settings.from_environment({"KOMPRESS_LOG_LEVEL": "LOUD"})
