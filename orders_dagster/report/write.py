"""How times, numbers and durations are written in a report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from markupsafe import Markup, escape

_UNITS = (
    (86_400.0, "d", "days"),
    (3_600.0, "h", "hours"),
    (60.0, "min", "minutes"),
    (1.0, "s", "seconds"),
)
_LARGE_ENOUGH = 2
"""Of a unit; 90 seconds say more than 1.5 minutes."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?\+00:00")


def time(value: datetime | None) -> str:
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:,}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    size, unit, _ = _unit(seconds)
    count = seconds / size
    return f"{count:,.0f} {unit}" if count >= 100 else f"{count:.1f} {unit}"


def unit_for(seconds: Sequence[float]) -> tuple[float, str]:
    """The unit that a series of durations is drawn in: its seconds, and its name."""
    size, _, name = _unit(max(seconds, default=0))
    return size, name


def _unit(longest: float) -> tuple[float, str, str]:
    return next((unit for unit in _UNITS if longest >= _LARGE_ENOUGH * unit[0]), _UNITS[-1])


def code(text: str) -> Markup:
    """A description, with what stands in backticks as code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def cell(value: Any) -> str:
    """A value of a table that a check has recorded. A whole number may be an id: it stays as it is."""
    if isinstance(value, float):
        return number(value)
    return "–" if value is None else _TIME.sub(r"\1 \2", str(value))
