"""Each reason that a condition, an attempt or an event of a CompressionJob can carry, once, with what it means.

The names of errors that end a pod are in `errors.py`; here are those that the operator finds by itself.
"""

import enum


class Reason(enum.StrEnum):
    """A machine-readable reason; its meaning is `MEANING[reason]`."""

    # Running
    PREFLIGHT = "Preflight"
    STAGE_RUNNING = "StageRunning"
    QUEUED = "Queued"
    BACKING_OFF = "BackingOff"
    REPORTING = "Reporting"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    # Complete
    GOALS_MET = "GoalsMet"
    # Failed
    GOAL_MISSED = "GoalMissed"
    NO_SPEEDUP = "NoSpeedup"
    STAGE_FAILED = "StageFailed"
    PREFLIGHT_FAILED = "PreflightFailed"
    REPORT_FAILED = "ReportFailed"
    RESTARTS_EXHAUSTED = "RestartsExhausted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    NO_OUTPUT = "NoOutput"
    RUNTIME_NOT_FOUND = "RuntimeNotFound"
    SPEC_TOO_LARGE = "SpecTooLarge"
    INVALID_SPEC = "InvalidSpec"
    NAME_TAKEN = "NameTaken"
    CREATE_REFUSED = "CreateRefused"
    # Outcome of an attempt
    SUCCEEDED = "Succeeded"
    CANCELLED = "Cancelled"
    INTERRUPTED = "Interrupted"
    OOM_KILLED = "OOMKilled"
    EVICTED = "Evicted"
    PREEMPTED = "Preempted"
    NODE_LOST = "NodeLost"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    UNSCHEDULABLE = "Unschedulable"
    STARTUP_DEADLINE_EXCEEDED = "StartupDeadlineExceeded"
    JOB_DELETED = "JobDeleted"
    REUSE_MISSED = "ReuseMissed"
    PROCESS_FAILED = "ProcessFailed"


MEANING: dict[Reason, str] = {
    Reason.PREFLIGHT: "The whole plan is being checked before any GPU is asked for.",
    Reason.STAGE_RUNNING: "A stage runs.",
    Reason.QUEUED: "The stage's Job is suspended by a queue (Kueue) and waits for quota.",
    Reason.BACKING_OFF: "An attempt ended and the next one waits for its backoff.",
    Reason.REPORTING: "All stages have ended; the report is being written.",
    Reason.SUSPENDED: "spec.suspend is true: no stage runs.",
    Reason.RESUMED: "spec.suspend is false again.",
    Reason.GOALS_MET: "All stages succeeded and every goal is met.",
    Reason.GOAL_MISSED: "All stages succeeded, a goal is missed; the model is kept.",
    Reason.NO_SPEEDUP: "All stages succeeded, a latency or throughput goal is missed; the model is kept.",
    Reason.STAGE_FAILED: "A stage failed in a way that another attempt can't mend.",
    Reason.PREFLIGHT_FAILED: "The plan can't work; no stage was started.",
    Reason.REPORT_FAILED: "All stages succeeded, but the report could not be written.",
    Reason.RESTARTS_EXHAUSTED: "A stage failed more often than spec.restartPolicy allows.",
    Reason.DEADLINE_EXCEEDED: "spec.activeDeadlineSeconds is over.",
    Reason.NO_OUTPUT: "A place that the job needs is named neither by the job nor by its runtime, or can't be reached from a pod.",
    Reason.RUNTIME_NOT_FOUND: "spec.runtimeRef names a ClusterCompressionRuntime that does not exist or may not be read.",
    Reason.SPEC_TOO_LARGE: "The merged spec is over its limit.",
    Reason.INVALID_SPEC: "The spec does not fit the API of this operator.",
    Reason.NAME_TAKEN: "An object of the name that this job needs belongs to someone else.",
    Reason.CREATE_REFUSED: "The API server refused an object of this job.",
    Reason.SUCCEEDED: "The attempt ended well.",
    Reason.CANCELLED: "The attempt was stopped by the operator (suspension, deadline, or another rank's end).",
    Reason.INTERRUPTED: "The attempt was stopped from outside and has saved a checkpoint.",
    Reason.OOM_KILLED: "A container used more memory than its limit.",
    Reason.EVICTED: "A pod was evicted from its node.",
    Reason.PREEMPTED: "A pod gave way to one of higher priority.",
    Reason.NODE_LOST: "A node went away with its pods.",
    Reason.IMAGE_PULL_BACK_OFF: "A container's image can't be pulled.",
    Reason.UNSCHEDULABLE: "No node fits a pod.",
    Reason.STARTUP_DEADLINE_EXCEEDED: "Not all pods were ready within spec.startupDeadlineSeconds.",
    Reason.JOB_DELETED: "The attempt's Job was deleted by someone else.",
    Reason.REUSE_MISSED: "The artifact that was to be reused is gone or damaged; the stage runs in full.",
    Reason.PROCESS_FAILED: "A process ended without saying why.",
}
