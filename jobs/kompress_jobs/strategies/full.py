"""Full: every weight learns, except those of `frozenModules`."""

from kompress_jobs.strategies import Phase, Subject


def phases(subject: Subject) -> list[Phase]:
    """One phase."""
    return [Phase(subject.settings.epochs, subject.some(subject.free()))]
