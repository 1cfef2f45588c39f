"""FeatureExtraction: the head alone learns; the rest rests, running statistics and dropout included."""

from kompress_jobs.strategies import Phase, Subject


def phases(subject: Subject) -> list[Phase]:
    """One phase."""
    return [Phase(subject.settings.epochs, subject.of_head(subject.free()))]
