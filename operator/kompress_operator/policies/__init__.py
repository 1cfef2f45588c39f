"""What the operator decides, one policy a file, in order of precedence.

`JOB_POLICIES` is asked from the top; the first that says something decides, except that a failure settles the stages
first and then lets the later ones speak (what is left may be the report). `ATTEMPT_POLICIES` is asked for each attempt
that runs. `ALARMS` tell when an answer may change by the mere passing of time.
"""

from collections.abc import Callable, Iterator

from kompress_operator.policies import active_deadline, classification, dag, merging, obstacles, start_deadline, ttl
from kompress_operator.policies import report as report_last
from kompress_operator.policies.cancellation import preflight_failed, stage_failed
from kompress_operator.policies.goals import conclude
from kompress_operator.policies.succeeded import succeeded
from kompress_operator.policies.suspend import suspend
from kompress_operator.policies.vanished import vanished
from kompress_operator.policies.verdict import AttemptPolicy, JobPolicy
from kompress_operator.view import View

ATTEMPT_POLICIES: tuple[AttemptPolicy, ...] = (
    succeeded,  # a result counts, whatever happened to the attempt afterwards
    classification.failed,  # the pods' own words, before ...
    vanished,  # ... what can be said without them
    report_last.report_deadline,  # its 15 minutes are firm; a late start is only tried again
    start_deadline.start_deadline,  # last: of an attempt that has not ended in any other way
)

JOB_POLICIES: tuple[JobPolicy, ...] = (
    ttl.finished,  # a finished job never changes its mind
    obstacles.refused,  # nothing can be made: no other failure is nearer to the cause
    merging.not_mergeable,  # there is no spec to run; nothing below has one to look at
    preflight_failed,  # the plan can't work: before stage failures, as no stage ran
    stage_failed,  # a root cause, so before the deadline that passes in the same moment
    active_deadline.active_deadline,  # before all that would start something: a deadline beats a restart
    conclude,  # nothing is left to run, so suspension has nothing to stop
    suspend,  # beats every start, the report's too: the user wants the machines
    report_last.report,  # all stages have ended
    obstacles.blocked,  # what may pass by itself is waited for
    dag.preflight_first,
    dag.order,
)

ALARMS: tuple[Callable[[View, float], Iterator[float]], ...] = (
    ttl.alarms,
    obstacles.alarms,
    merging.alarms,
    active_deadline.alarms,
    dag.alarms,
    start_deadline.alarms,
    classification.alarms,
    report_last.alarms,
)
