"""Where windows meet, and which of them an order there is in: not every API includes the start of a window
and excludes its end, so that an order that is dated there would be in both windows, or in none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta

from orders_dagster.cursor import floor
from orders_dagster.span import EARLIEST, Span

NEARBY = 200
"""How many steps of the cursor's format are looked at for one in which no order is dated."""

FEW = 3
"""So many windows that differ may do so for other reasons than their edges."""


class Edges:
    """Where windows may meet: not every API includes the start of a window and excludes its end, so that an
    order that is dated there would be in both windows, or in none.

    Args:
        times_in: the modification dates in a span.
        step: the smallest difference between two times that a request can name.
    """

    def __init__(self, times_in: Callable[[Span], list[datetime]], step: timedelta) -> None:
        self._times_in = times_in
        self.step = step

    def __call__(self, time: datetime) -> datetime:
        """The last step up to a time in which no order is dated; that of the time itself, if there is none
        nearby."""
        at = floor(time, self.step)
        steps = min(NEARBY, (at - EARLIEST) // self.step)
        return self._free(at, [at - n * self.step for n in range(steps + 1)])

    def behind(self, time: datetime, within: timedelta) -> datetime:
        """The first such step from a time on: what comes before it is to be compared."""
        at = floor(time, self.step)
        steps = min(NEARBY, within // self.step)
        return self._free(at, [at + n * self.step for n in range(steps + 1)])

    def _free(self, otherwise: datetime, steps: list[datetime]) -> datetime:
        near = Span(min(steps), max(steps) + self.step)
        taken = {floor(one, self.step) for one in self._times_in(near)}
        return next((step for step in steps if step not in taken), otherwise)


class Expected:
    """How many orders an API is to have in a window, of those in the warehouse.

    Args:
        present_in: how many the warehouse has in a span, without those of some keys.
        step: the smallest difference between two times that a request can name.
    """

    def __init__(
        self, present_in: Callable[[Span, Collection[int | str]], int], step: timedelta
    ) -> None:
        self._present_in = present_in
        self._step = step
        self._excludes_start = self._includes_end = False

    def __call__(self, span: Span, without: Collection[int | str] = ()) -> int:
        count = self._present_in(span, without)
        if self._excludes_start:
            count -= self._present_in(Span(span.start, span.start + self._step), without)
        if self._includes_end:
            count += self._present_in(Span(span.end, span.end + self._step), without)
        return count

    def learn(self, spans: Sequence[Span], in_api: Sequence[int]) -> None:
        """See from many windows which edges the API counts: where dates are days, or a shop is busy in
        every second, there is no step without an order for windows to meet at."""
        differing = {}
        for form in ((False, False), (False, True), (True, False), (True, True)):
            self._excludes_start, self._includes_end = form
            differing[form] = sum(
                self(span) != count for span, count in zip(spans, in_api, strict=True)
            )
            if not any(form) and differing[form] <= FEW:
                return
        best = min(differing, key=lambda form: differing[form])
        is_plain = 2 * differing[best] > differing[False, False]
        self._excludes_start, self._includes_end = (False, False) if is_plain else best
