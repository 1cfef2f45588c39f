"""Charts as inline SVG: no script, no file beside the page, colours from its style sheet (`.bar`, `.better`, `.worse`, ...)."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH = 640
LABEL = 150
VALUE = 130
ROW = 26


class Bar(NamedTuple):
    """One row."""

    label: str
    value: float
    text: str
    low: float | None = None
    """Ends of a whisker."""
    high: float | None = None
    kind: str = "bar"
    """Class of the style sheet."""


def bars(rows: Sequence[Bar], *, start: float = 0.0) -> Markup:
    """Horizontal bars from `start`, with whiskers where a row has an interval."""
    if not rows:
        return Markup("")
    end = max(max(row.value, row.high or row.value) for row in rows)
    span = (end - start) or 1.0
    room = WIDTH - LABEL - VALUE

    def x(value: float) -> float:
        return round(LABEL + room * max(0.0, min(1.0, (value - start) / span)), 1)

    parts = []
    for index, row in enumerate(rows):
        top = index * ROW
        middle = top + ROW / 2
        parts.append(_text(LABEL - 8, middle, row.label, "end"))
        parts.append(
            Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="2"/>').format(
                row.kind, LABEL, top + 5, max(1.0, x(row.value) - LABEL), ROW - 10
            )
        )
        if row.low is not None and row.high is not None:
            parts.append(
                Markup('<path class="whisker" d="M{0} {2}H{1}M{0} {3}v8M{1} {3}v8"/>').format(x(row.low), x(row.high), middle, middle - 4)
            )
        parts.append(_text(WIDTH - VALUE + 8, middle, row.text, "start"))
    return _svg(len(rows) * ROW, parts)


class Pair(NamedTuple):
    """A value before and after."""

    label: str
    before: float
    after: float
    text: str
    kind: str


def pairs(rows: Sequence[Pair]) -> Markup:
    """Dots before and after on one scale from the smallest value to 1, joined by a line."""
    if not rows:
        return Markup("")
    low = min(min(row.before, row.after) for row in rows)
    start = max(0.0, low - 0.1 * (1.0 - low) - 1e-9)
    room = WIDTH - LABEL - VALUE

    def x(value: float) -> float:
        return round(LABEL + room * (value - start) / ((1.0 - start) or 1.0), 1)

    parts = []
    for index, row in enumerate(rows):
        middle = index * ROW + ROW / 2
        parts.append(_text(LABEL - 8, middle, row.label, "end"))
        parts.append(Markup('<path class="join {}" d="M{} {}H{}"/>').format(row.kind, x(row.before), middle, x(row.after)))
        parts.append(Markup('<circle class="before" cx="{}" cy="{}" r="4"/>').format(x(row.before), middle))
        parts.append(Markup('<circle class="{}" cx="{}" cy="{}" r="5"/>').format(row.kind, x(row.after), middle))
        parts.append(_text(WIDTH - VALUE + 8, middle, row.text, "start"))
    return _svg(len(rows) * ROW, parts)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    shown = text if len(text) <= 24 else f"{text[:23]}…"
    return Markup('<text x="{}" y="{}" text-anchor="{}" dominant-baseline="middle">{}<title>{}</title></text>').format(
        x, y, anchor, shown, text
    )


def _svg(height: float, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img">{}</svg>').format(WIDTH, height, Markup("").join(escape(part) for part in parts))
