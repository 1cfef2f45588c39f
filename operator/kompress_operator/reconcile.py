"""The decision: what is observed of one job in, its status and the next actions out.

Pure: no client, event loop, thread, clock, random number or environment. It may be called at any time, with any
observation, any number of times; everything it needs to remember stands in `status`, and every name derives from what was
observed. What it says twice does no harm twice. The same function drives pods on a cluster and processes on a laptop.
"""

from kompress_api.merge import spec_digest
from kompress_api.names import REPORT, service_name
from kompress_api.reasons import Reason
from kompress_api.status import StageState
from kompress_operator.actions import Action, CreateAttempt, CreateRevision, CreateService, Decision, DeleteAttempt, DeleteService
from kompress_operator.observed import Observed
from kompress_operator.policies import ALARMS, JOB_POLICIES
from kompress_operator.policies.cleanup import removals
from kompress_operator.policies.dag import ready_at, wants_reuse
from kompress_operator.policies.verdict import Course, Verdict
from kompress_operator.progress import begin, pause, record_ends, settle
from kompress_operator.status import project
from kompress_operator.view import Trouble, View, newest, take_stock


def reconcile(observed: Observed, now: float) -> Decision:
    """One pass. `now` is in seconds since the epoch."""
    view = take_stock(observed, now)
    if not view.status.phase.finished:
        view = _fail_refused_report(record_ends(view, now))
        if view.failure is not None:
            view = settle(view, view.failure, now)
    view, verdict = decide(view, now)
    actions: list[Action] = list(removals(observed))
    if verdict.course is Course.SUSPEND:
        view = pause(view, now)
    if verdict.course is Course.CLEAN_UP:
        actions = _clean_up(observed)
    if verdict.course is Course.START and verdict.starts:
        if not _is_written(view):
            return Decision(project(view, verdict, now), tuple(actions), 0.0)
        view, started = _start(view, verdict.starts, now)
        actions += started
    return Decision(project(view, verdict, now), tuple(actions), _requeue_after(view, verdict, now))


def _is_written(view: View) -> bool:
    """Whether the status that was observed holds each stage's state already.

    Only then something is started. What a pass has just found out may rest on a status that is out of date (a stage that was suspended
    meanwhile), and the write that would say so comes after the create.
    """
    written = {entry.name: entry.state for entry in view.observed.status.stages}
    return all(entry.state is written.get(entry.name, StageState.PENDING) for entry in view.status.stages)


def decide(view: View, now: float) -> tuple[View, Verdict]:
    """The first policy that says something; a failure settles the stages before the later ones are asked."""
    for policy in JOB_POLICIES:
        verdict = policy(view, now)
        if verdict is None:
            continue
        if verdict.course is not Course.FAIL:
            return view, verdict
        if view.failure is None:
            view = settle(view, Trouble(verdict.reason, verdict.message), now)
    return view, Verdict(Course.WAIT, Reason.STAGE_RUNNING)


def _start(view: View, names: tuple[str, ...], now: float) -> tuple[View, list[Action]]:
    assert view.merged is not None
    actions: list[Action] = []
    job = view.observed.job
    if view.observed.merged is None:
        actions.append(CreateRevision(job.name, spec_digest(view.merged), view.merged.dump()))
    if not view.observed.service:
        actions.append(CreateService(service_name(job.name)))
    view = view.with_status(spec_digest=spec_digest(view.merged), revision=job.name)
    for name in names:
        last = newest(view.entry(name))
        number = 1 + max([last.attempt if last is not None else 0, *(other.attempt for other in view.jobs_of(name))])
        reuse = wants_reuse(view, name)
        actions.append(CreateAttempt(name, number, reuse, ready_at(view, name)))
        view = begin(view, name, number, now, reuse)
    return view, actions


def _clean_up(observed: Observed) -> list[Action]:
    actions: list[Action] = [
        DeleteAttempt(job.name, job.uid, "ttlSecondsAfterFinished") for job in observed.attempts if job.deleting is None
    ]
    return [*actions, DeleteService(service_name(observed.job.name))] if observed.service else actions


def _fail_refused_report(view: View) -> View:
    refusal = next((o for o in view.observed.obstacles if o.stage == REPORT and not o.passing), None)
    if refusal is None:
        return view
    return view.with_entry(view.entry(REPORT).model_copy(update={"state": StageState.FAILED, "retry_at": None}))


def _requeue_after(view: View, verdict: Verdict, now: float) -> float | None:
    """An alarm that is past was heard by this very pass: what it brings about is decided, or waits for something to change."""
    policies = ALARMS[:1] if verdict.course in (Course.END, Course.REST, Course.CLEAN_UP) else ALARMS
    return min((at - now for policy in policies for at in policy(view, now) if at > now), default=None)
