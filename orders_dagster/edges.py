"""Where the windows meet that are compared, and which of them an order that is dated there is in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from orders_dagster.cursor import floor
from orders_dagster.span import EARLIEST, Span

NEARBY = 200
"""How many steps of the cursor's format are looked at for one in which no order is dated."""

PLAIN = (0, 0)
"""By how many steps a window has to be asked for earlier: its start, where that is excluded, and its end,
where that is included."""

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


class Counted:
    """How many orders an API has in a window, its start included and its end excluded, however the API
    counts them.

    Args:
        orders_in: how many the API says there are in a span.
        present_in: how many the warehouse has in it.
        step: the smallest difference between two times that a request can name.
    """

    def __init__(
        self, orders_in: Callable[[Span], int], present_in: Callable[[Span], int], step: timedelta
    ) -> None:
        self._orders_in = orders_in
        self._present_in = present_in
        self._step = step
        self._earlier = PLAIN

    def __call__(self, span: Span) -> int:
        start, end = self._earlier
        return self._orders_in(Span(span.start - start * self._step, span.end - end * self._step))

    def learn(self, spans: Sequence[Span], in_api: Sequence[int], here: Sequence[int]) -> bool:
        """See from many windows which edges the API counts: where dates are days, or a shop is busy in
        every second, there is no step without an order for windows to meet at.

        Args:
            in_api: how many the API says there are in each of the windows.
            here: how many the warehouse has.

        Returns: whether they have to be asked for once more, since it counts other edges.
        """
        plainly = sum(one != other for one, other in zip(here, in_api, strict=True))
        if plainly <= FEW:
            return False
        at = {edge: self._present_in(Span(edge, edge + self._step)) for edge in _edges(spans)}

        def differing(earlier: tuple[int, int]) -> int:
            start, end = earlier
            expected = (
                count - start * at[span.start] + end * at[span.end]
                for span, count in zip(spans, here, strict=True)
            )
            return sum(one != other for one, other in zip(expected, in_api, strict=True))

        best = min(((0, 1), (1, 0), (1, 1)), key=differing)
        if 2 * differing(best) >= plainly:
            return False
        self._earlier = best
        return True


def _edges(spans: Sequence[Span]) -> set[datetime]:
    return {edge for span in spans for edge in (span.start, span.end)}
