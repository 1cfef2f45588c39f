"""A watch that has gone deaf is noticed, one that has nothing to tell is not."""

from kompress_operator.health import WatchHealth


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def health() -> tuple[WatchHealth, Clock]:
    clock = Clock()
    return WatchHealth(120, clock), clock


def test_silence_alone_is_no_fault() -> None:
    watch, clock = health()
    watch.heard("jobs", "a", "5", deleted=False)
    clock.now = 100_000
    watch.read("jobs", "a", "5")
    clock.now = 200_000
    assert watch.deaf == ""


def test_a_change_that_was_read_and_never_heard_of_is() -> None:
    watch, clock = health()
    watch.heard("jobs", "a", "5", deleted=False)
    watch.read("jobs", "a", "6")
    clock.now = 119
    assert watch.deaf == ""
    watch.read("jobs", "a", "7")  # later versions do not start the time anew
    clock.now = 121
    assert "version 6 of jobs a" in watch.deaf


def test_a_late_event_heals_it() -> None:
    watch, clock = health()
    watch.read("jobs", "a", "6")
    clock.now = 121
    watch.heard("jobs", "a", "10", deleted=False)
    assert watch.deaf == ""


def test_nothing_is_owed_of_what_is_gone() -> None:
    watch, clock = health()
    watch.read("jobs", "a", "6")
    watch.read("compressionjobs", "b", "7")
    watch.read("compressionjobs", "c", "7")
    watch.heard("jobs", "a", "8", deleted=True)
    watch.gone("compressionjobs", "b")
    watch.forget_unseen("compressionjobs", set())
    clock.now = 1000
    assert watch.deaf == ""
