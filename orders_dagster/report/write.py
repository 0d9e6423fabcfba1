"""How times, numbers and durations are written in a report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_LARGE_ENOUGH = 2
"""Of a unit; 90 seconds say more than 1.5 minutes."""


def time(value: datetime | None) -> str:
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:,}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    size, unit = unit_for([seconds])
    return (
        f"{seconds / size:,.3g} {unit}"
        if seconds < 1_000 * size
        else f"{seconds / size:,.0f} {unit}"
    )


def unit_for(seconds: Sequence[float]) -> tuple[float, str]:
    """The unit that a series of durations is drawn in: its seconds, and its name."""
    longest = max(seconds, default=0)
    return next((unit for unit in _UNITS if longest >= _LARGE_ENOUGH * unit[0]), _UNITS[-1])


def cell(value: Any) -> str:
    """A value of a table that a check has recorded."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value)
    return "–" if value is None else str(value)
