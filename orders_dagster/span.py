"""A span of modification dates that somebody names: to read it again, or to compare it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from orders_dagster.cursor import floor
from orders_dagster.errors import SpanRefused

EARLIEST = datetime.min.replace(tzinfo=UTC) + timedelta(days=2)
LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=2)
"""A little is subtracted from the start of a span where the API excludes it, and added to its end."""


@dataclass(frozen=True)
class Span:
    """Half-open: orders modified at `start` are in it, those modified at `end` are not. UTC."""

    start: datetime
    end: datetime

    @classmethod
    def parse(cls, start: str, end: str, now: datetime) -> Span:
        """A span from two texts, ISO 8601; without an offset they are UTC.

        Args:
            end: empty for now.
            now: UTC.

        Raises:
            SpanRefused: no dates, an end that is not after the start, or a start in the future.
        """
        begins = max(_time("start", start), EARLIEST)
        ends = min(_time("end", end), LATEST) if end.strip() else now
        if begins >= now:
            raise SpanRefused(f"its start, {begins.isoformat()}, is in the future")
        if ends <= begins:
            raise SpanRefused(
                f"its end, {ends.isoformat()}, is not after its start, {begins.isoformat()}"
            )
        return cls(begins, ends)

    def __contains__(self, time: datetime) -> bool:
        return self.start <= time < self.end

    def on_steps(self, step: timedelta) -> Span:
        """The smallest span around it that a request can name, whose times are cut to whole steps."""
        end = floor(self.end, step)
        return Span(floor(self.start, step), end if end == self.end else end + step)

    def __str__(self) -> str:
        return f"{self.start.isoformat()} to {self.end.isoformat()}"


def _time(name: str, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text.strip())
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise SpanRefused(
            f'its {name} is no date; write it as "2026-03-01" or "2026-03-01T06:00:00+01:00"'
        ) from None
