"""Live progress on standard error: bars in a terminal, a line for each change of state elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from kompress_api.names import PREFLIGHT, REPORT
from kompress_api.status import CompressionJobStatus, StageState, StageStatus
from kompress_operator.cli.tables import console, state_of
from kompress_operator.local.backend import Update
from kompress_operator.local.tail import Event

SHOWN = {"train/loss": "loss", "validation/accuracy": "accuracy", "validation/wer": "word error rate"}
"""Figures beside a bar, and what they are called there."""


class LiveProgress:
    """Shows `Update`s until it is left."""

    def __init__(self, status: CompressionJobStatus, shown: Console | None = None) -> None:
        self._console = shown or console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, str] = {entry.name: _state(entry) for entry in status.stages}
        self._figures: dict[str, dict[str, float]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._console.print(text, markup=False, soft_wrap=True)

    def update(self, update: Update) -> None:
        """What is new."""
        for entry in update.status.stages:
            state = _state(entry)
            if self._told.get(entry.name) != state:
                self._told[entry.name] = state
                self._tell(entry, state)
        for stage, event in update.events:
            self._show(stage, event)

    def _tell(self, entry: StageStatus, state: str) -> None:
        if entry.state is StageState.PENDING or (entry.state is StageState.SKIPPED and entry.name in (PREFLIGHT, REPORT)):
            return
        self.say(f"{entry.name}: {state}")
        if entry.state is StageState.RUNNING:
            self._figures.pop(entry.name, None)
            if entry.name in self._tasks:
                self._bars.remove_task(self._tasks.pop(entry.name))
            self._tasks[entry.name] = self._bars.add_task(entry.name, total=None, text="starting")
        elif entry.name in self._tasks:
            ended = entry.state.ended
            self._bars.update(self._tasks[entry.name], total=1 if ended else None, completed=1 if ended else 0, text=state)

    def _show(self, stage: str, event: Event) -> None:
        kind = event["type"]
        if kind == "warning":
            self.say(f"{stage}: warning: {event.get('text', '')}")
        if stage not in self._tasks:
            return
        if kind == "metrics":
            values = event.get("values", {})
            self._figures.setdefault(stage, {}).update({name: values[name] for name in SHOWN if name in values})
        elif kind == "progress":
            figures = self._figures.get(stage, {})
            text = ", ".join(
                [str(event.get("text", "")), *(f"{title} {figures[name]:.3f}" for name, title in SHOWN.items() if name in figures)]
            )
            self._bars.update(self._tasks[stage], total=event.get("total"), completed=event.get("done", 0), text=text)


def _state(entry: StageStatus) -> str:
    """What is told when it changes."""
    last = entry.attempts[-1] if entry.attempts else None
    if entry.state is StageState.RUNNING and last is not None:
        reuse = ", verifying what is there" if last.reuse else ""
        after = f" after {entry.attempts[-2].outcome}" if len(entry.attempts) > 1 else ""
        return f"running (attempt {last.attempt}{after}{reuse})"
    if entry.state is StageState.BACKING_OFF and last is not None:
        return f"{last.outcome}, next attempt at {entry.retry_at}: {last.message.splitlines()[0] if last.message else ''}"
    if entry.state is StageState.FAILED and last is not None:
        return f"failed: {last.outcome}: {last.message}"
    return state_of(entry).lower()
