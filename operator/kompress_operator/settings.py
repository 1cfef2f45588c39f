"""The operator's settings, each read from one environment variable that the chart sets."""

import dataclasses
import os
import socket
from collections.abc import Mapping

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class InvalidSetting(ValueError):
    """An environment variable whose value can't be used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A field is read from `KOMPRESS_<FIELD>` in capitals; an absent or empty variable leaves the default."""

    watch_namespaces: tuple[str, ...] = ()
    """Namespaces that are served, separated by commas; empty: all of the cluster."""
    namespace: str = "default"
    """Namespace of the operator itself; the Lease lives there."""
    lease_name: str = "kompress"
    """Lease that replicas compete for."""
    pod_name: str = dataclasses.field(default_factory=socket.gethostname)
    """Who holds the Lease. A container that restarts in its pod keeps the name, and so takes up work without waiting."""
    lease_seconds: int = 15
    """How long a silent leader is believed: the longest pause when its node dies. client-go's default."""
    renew_seconds: int = 10
    """How long a leader tries to renew before it ends itself; below lease_seconds, so that two never work at once."""
    retry_seconds: int = 2
    """Pause between two tries to take or renew the Lease."""
    workers: int = 8
    """Jobs that are looked at at the same time: each waits for a handful of requests, none needs the processor for long."""
    resync_seconds: int = 300
    """Every job is looked at this often, whatever the watch says: an event that was lost costs at most this."""
    request_seconds: int = 30
    """Longest time of one request to the API server."""
    watch_seconds: int = 300
    """A watch is begun anew after this, as proxies forget idle connections."""
    deaf_seconds: int = 120
    """A change that was read but not heard of for this long means that the watch is deaf: liveness fails, the pod restarts."""
    backoff_seconds: float = 1.0
    """Pause after a first failed pass over a job; doubled by each further one."""
    max_backoff_seconds: float = 60.0
    """Longest such pause."""
    health_port: int = 8080
    """Port of /healthz (liveness) and /readyz."""
    metrics_port: int = 9090
    """Port of /metrics."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> "Settings":
        """Raises InvalidSetting, which names the variable, its value and what is expected."""
        given: dict[str, object] = {}
        for field in dataclasses.fields(Settings):
            name = f"KOMPRESS_{field.name.upper()}"
            text = environment.get(name, "").strip()
            if text:
                given[field.name] = _parse(name, text, field.type)
        settings = Settings(**given)  # type: ignore[arg-type]
        if not settings.lease_seconds > settings.renew_seconds > 1.2 * settings.retry_seconds:
            raise InvalidSetting(
                f"KOMPRESS_LEASE_SECONDS is {settings.lease_seconds}: expected more than "
                f"KOMPRESS_RENEW_SECONDS ({settings.renew_seconds}), and that more than 1.2 times "
                f"KOMPRESS_RETRY_SECONDS ({settings.retry_seconds})"
            )
        if settings.log_level not in LEVELS:
            raise InvalidSetting(f"KOMPRESS_LOG_LEVEL is {settings.log_level!r}: expected one of {', '.join(LEVELS)}")
        return settings


def _parse(name: str, text: str, kind: object) -> object:
    if kind is str:
        return text
    if kind in (int, float):
        try:
            value = int(text) if kind is int else float(text)
        except ValueError:
            value = -1
        if value <= 0:
            raise InvalidSetting(f"{name} is {text!r}: expected {'a whole' if kind is int else 'a'} number above 0")
        return value
    return tuple(part.strip() for part in text.split(",") if part.strip())
