"""Seek paging: the start of the window moves to the last row read, and the offset serves only the rows
that share that one timestamp.

What an API does otherwise than it says is noticed here, page by page: a sort or a filter that is ignored,
a start that is excluded, a total that is none, ties that come in another order each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from requests import Request, Response

from orders_dagster.api.paging import READ_AGAIN, OrdersPaginator, Paging
from orders_dagster.cursor import (
    EPOCH,
    UnreadableTime,
    floor,
    read_time,
    step_of,
    value_at,
    write_time,
)
from orders_dagster.errors import ResponseNotUnderstood
from orders_dagster.seen import Seen, identities
from orders_dagster.span import EARLIEST, LATEST
from orders_dagster.windows import Windows

READ_TIES_AGAIN = 50
"""How often one timestamp is read again whose orders come in another order each time."""

QUIET_PASSES = 10
"""How many passes over such a timestamp have to show nothing new before it is left, where orders leave it
all the time: one that was seen and has moved away makes the number of orders seen look complete, and in a
random order a pass misses a given order in up to two cases of five."""

MOST_REPEATS = 8
"""After how many pages that are all the same an API is said to ignore the offset. Of ties that come in
another order each time, two small pages in a row may well be the same."""

ONE_SECOND = timedelta(seconds=1)
LONGEST_OVERLAP = timedelta(hours=1)
"""By how much a window may begin earlier, for a filter that excludes its start. A day would be much."""

SMALLEST_OFFSET = timedelta(minutes=15)
"""No two time zones differ by less. An order that is closer to the start of its window shows that the
filter reads dates as they are written."""

MOST_UNDATED_LEADS = 50
"""How many pages of orders without a readable date may come before others. An API that sorts these first
would show them again at the start of every page."""

ASK_AGAIN = 3
"""How many orders have to be left out by a filter that was asked for them, one after the other, before it
is said to read dates otherwise: each may have changed a moment ago."""


@dataclass(frozen=True)
class Unproven:
    """A first page whose orders share one timestamp, of which it has to be seen that nothing is older.

    Attributes:
        last: the timestamp.
        keys: the ids of its orders.
        left: how many orders there are behind it, None if the API does not say.
        end: where what is asked for ends; None if a request cannot name it, or it is not kept to.
        offset: where to look then.
    """

    last: datetime
    keys: list[str]
    left: int | None
    end: datetime | None
    offset: int


class SeekPaginator(OrdersPaginator):
    """Moves the start of the window to the last row read; the offset counts only its ties.

    Orders that share one timestamp over several pages are the one place where an offset is needed, and
    where a row that moves away pulls its successors past the reader. So each such page overlaps the one
    before by a row, the different orders seen are held against their number, and after the last page the
    first one is read again, and has to be the same. If not, the whole timestamp is read again; and what
    follows is always read from the next timestamp on, never from an offset.

    Two more things that an API may do are noticed and coped with: it reports the size of the page for
    the total, it excludes the start of the window.
    """

    _start: datetime
    _start_text: str
    _edge: datetime | None  # the last row read: it has to appear again
    _undated: bool  # the page holds no order with a readable date
    _overlaps: bool  # pages of ties overlap by a row, as long as the order of the ties holds
    _looks_behind: bool  # this page does not, for once
    _mismatches: int
    _last_key: str | None
    _tied: Seen
    _known: int  # how many of them when this pass began
    _seen_since: Seen  # those of them seen in this attempt, or since their number is known
    _there_were: int | None
    _quiet_passes: int
    _repeats: int
    _first_keys: list[str]  # the first page of the ties, as it was when this pass began
    _confirms: bool  # the first page is being read again

    def __init__(self, paging: Paging, windows: Windows) -> None:
        super().__init__(paging, windows)
        self._format = paging.shape.cursor_format
        self._step = step_of(self._format)
        self._largest = 0
        self._read = 0
        self._since: datetime | None = None
        self._excludes_start = False
        self._was_mistaken = False
        self._probes_edge = False
        self._probed: tuple[int, datetime | None, list[str]] | None = None
        self._dated: list[datetime] = []  # the last page that held orders with a date
        self._sought: datetime | None = None  # one of them, which is asked for again
        self._sought_in_vain = 0
        self._unproven: Unproven | None = None
        self._found_older = 0

    def _start_window(self) -> None:
        start = self._window.start
        # A filter that excludes its start would lose what is dated at the edge of two windows, at a
        # watermark that not all was read of, or at the very first. Where the step is a day, that is the
        # condition the README names. As a number, no API expects a date below 0.
        earliest = EPOCH if self._format.startswith("epoch") else EARLIEST
        may_begin_earlier = self._step <= LONGEST_OVERLAP and start - earliest >= self._step
        overlaps = may_begin_earlier and not self.shape.start_is_included
        self._go_to(start - self._step if overlaps else start)

    @property
    def _read_until(self) -> datetime:
        return self._start if self._sought is None else self._window.start

    def _span(self) -> tuple[str, str | None]:
        if self._unproven is not None and self._unproven.end is not None:
            return self._start_text, write_time(self._unproven.end, self._format)
        return self._start_text, super()._span()[1]

    def update_request(self, request: Request) -> None:
        super().update_request(request)
        if self._trial is not None:
            return
        if self._unproven is not None and self._unproven.end is None:
            request.params[self.paging.offset_param] = str(self._unproven.offset)
        elif self._probed is not None or self._unproven is not None:
            request.params[self.paging.limit_param] = "1"
        if self._overlaps and self.offset:
            request.params[self.paging.offset_param] = str(self.offset - 1)

    def _turn_page(
        self, response: Response, rows: list[Any], total: int | None, is_repeated: bool
    ) -> None:
        times = self._times(response, rows)
        if self._sought is not None:
            self._judge_filter(response, rows, times, total)
            rows.clear()  # all of them have been read
            return
        if self._unproven is not None:
            self._judge_sort(response, rows, times, total)
            rows.clear()  # they are read at their place
            return
        self._largest = max(self._largest, len(rows))
        self._read += len(rows)
        self._since = self._since or min(times, default=None)
        self._trust_filter(times)
        self._dated = times or self._dated
        if times and times[-1] - times[0] >= self._step:
            self.shape.sort_is_trusted = True
        self._read_on(response, rows, times, total, is_repeated)
        if not self._has_next_page and self._dated and not self.shape.filter_is_trusted:
            self._seek()

    def _read_on(
        self,
        response: Response,
        rows: list[Any],
        times: list[datetime],
        total: int | None,
        is_repeated: bool,
    ) -> None:
        """What to ask for after a page."""
        if self._probed is not None:
            self._judge_total(total, len(rows))
        elif self._confirms and self._keys == self._first_keys:
            self._leave_ties(total)
        elif self.offset:
            self._turn_page_of_ties(response, rows, times, total, is_repeated)
        elif (
            self._edge is None
            or (not rows and total)  # empty by mistake: it shows nothing
            or not self._looks_behind_edge(times)
        ):
            self._turn_first_page(response, rows, times, total)

    def _turn_first_page(
        self, response: Response, rows: list[Any], times: list[datetime], total: int | None
    ) -> None:
        """A page from the start of the window."""
        if self._confirms:
            self._mismatch()
        last = self._settled(times)
        if not rows:
            if total:
                self._ask_again(response, 0, total)
            else:
                self._has_next_page = False
            return
        if self._excludes_start and last is not None and self._start - last >= self._step:
            if self._holds_start(times) and not self._was_mistaken:
                # What was missed there had moved away, or another copy of the data had answered.
                self._was_mistaken, self._excludes_start = True, False
                self._go_to(self._start)
                return
            raise self.shape.not_understood(
                response,
                f"its filter excludes only a part of what {self._start_text} names",
                "sources.orders.cursor_format to one that is as precise as the data",
            )
        self.shape.trust(total, len(rows))
        if total is not None and len(rows) >= total:
            if self.shape.total_is_trusted:
                if self._is_whole(len(rows)):
                    self._has_next_page = False
                    return
            elif len(rows) > 1:
                self._probed = (total, last, self._keys)
                return
        left = total - len(rows) if total is not None and self.shape.total_is_trusted else None
        if left is not None and last is not None:
            left += sum(time > last for time in times)
        self._continue_from(last, len(rows), left)

    def _settled(self, times: list[datetime]) -> datetime | None:
        """The newest date of a page that the next one may begin with.

        Where an index finds and sorts, and a database says what the orders are, one that has just changed
        is at the place of its earlier date, and what lies between the two comes behind it. A date that is
        as young as the lag does no harm: the next run reads again from there.
        """
        lag_start = self._lag_start()
        settled = max((time for time in times if time <= lag_start), default=None)
        if (
            settled is not None
            and settled > self._start
            and self._text(settled) != self._start_text
        ):
            return settled
        return max(times, default=None)

    def _lag_start(self) -> datetime:
        return datetime.now(UTC) - self.paging.lag

    def _is_whole(self, rows: int) -> bool:
        """Whether a page that is as long as the total says holds all: unless it may be cut, since there was
        none that is longer, where the number ends as well. Two orders are no such page: with one of them
        the window began, and a shop that changes one with every request would never be left."""
        return rows < self.paging.page_size and (rows < self.shape.largest_page or rows <= 2)

    def _continue_from(self, last: datetime | None, seen: int, left: int | None) -> None:
        """On to the last row read, or into its ties if it is the start already."""
        if last is not None and self._text(last) != self._start_text:
            if not self.shape.sort_is_trusted:
                end = last if self.windows.can_end else None
                self._unproven = Unproven(last, self._keys, left, end, offset=seen)
                return
            self._move_to(last, left)
            self._edge = last
            return
        self._undated = last is None
        # A page of one row has no room for another beside the one that is read again.
        self._overlaps = self._overlaps and self._largest > 1
        self.offset, self._last_key = seen, self._keys[-1] if self._keys else None
        self._first_keys = self._keys
        self._add_tied(identities(self._keys, 0))

    def _turn_page_of_ties(
        self,
        response: Response,
        rows: list[Any],
        times: list[datetime],
        total: int | None,
        is_repeated: bool,
    ) -> None:
        """A page at an offset from the start: more rows of the start's timestamp, or what follows."""
        is_behind = any(self._text(time) != self._start_text for time in times)
        if self._undated and times:
            self._leave_undated(response, times[-1])
            return
        at = self.offset - 1 if self._overlaps else self.offset
        is_left = total is not None and self.shape.total_is_trusted and total > at + len(rows)
        if is_left and len(rows) <= self._overlaps:  # nothing new, though there is more
            self._skip_nothing(response, at, total or 0)
            return
        ties = [
            identity
            for identity, row in zip(identities(self._keys, at), rows, strict=True)
            if self._is_tied(value_at(row, self.shape.cursor_path))
        ]
        self._add_tied(ties)
        there_are = at + len(ties)
        # All of them in one answer, which had room for more: no order of theirs can matter. Where a total
        # has said that there is more, it was cut.
        first = len(self._first_keys)
        is_single = there_are <= 1 and not self._may_be_cut(first)
        had_room = not self.shape.total_is_trusted and (first < self._largest or is_single)
        came_at_once = there_are <= first and had_room
        if self._looks_behind and rows:
            # The page was cut, the offset is ignored, or an order has come or gone: from here on pages do
            # not overlap, and are read again until nothing new comes.
            self._looks_behind = False
        if self._overlaps or self._looks_behind:
            is_end = is_behind or len(rows) == self._overlaps
            # The row that is read again may have moved to where the page begins that is behind its ties.
            is_another = self._overlaps and (self._keys[:1] != [self._last_key] or not ties)
            if is_end and not (is_behind or is_another or self._looks_behind):
                self._look_behind(at + 1)
                return
            self._overlaps, self._looks_behind = True, False
            if is_another or (is_end and len(self._seen_since) < there_are):
                self._mismatch()
                self.offset = 0
            elif is_end and came_at_once:
                self._leave_ties(total)
            elif is_end:
                # Where rows come in another order each time, the row that is read again may be there by
                # chance, and the number be right since one of those seen has moved away.
                self._confirms, self.offset = True, 0
            else:
                self.offset += len(rows) - 1
                self._last_key = self._keys[-1]
            return
        self._repeats = self._repeats + 1 if is_repeated else 0
        if self._repeats >= (1 if self.shape.ignores_offset else MOST_REPEATS):
            there_is_more = self.shape.total_is_trusted and (total or 0) > len(self._tied)
            if there_is_more or self._may_be_cut(len(rows)):
                raise self._offset_is_ignored(response)
            self.shape.ignores_offset = True
            self._leave_ties(total)
            return
        if rows and not is_behind:
            self.offset += len(rows)
            if not is_repeated:
                self._check_offset(response, self._tied)
            return
        if came_at_once and len(self._tied) <= there_are:
            self._leave_ties(total)
            return
        self._end_pass(response, there_are, total)

    def _end_pass(self, response: Response, there_are: int, total: int | None) -> None:
        """In an order that changes, one pass does not see them all: another one, from the start, until as
        many were seen as there had been when the first of those passes began."""
        were, found = self._there_were, len(self._tied)
        are_all_seen = were is not None and there_are <= were <= len(self._seen_since)
        if found > self._known or found < there_are:
            self._readings += 1
            self._quiet_passes = 0
            if self._readings > READ_TIES_AGAIN and found < there_are:
                raise self._disagreement(response, found, there_are, self._readings)
        else:
            self._quiet_passes += 1
        # There may be ever more, as there are today where requests name days: the next run reads those.
        is_enough = self._quiet_passes >= QUIET_PASSES or self._readings > READ_TIES_AGAIN
        if are_all_seen or is_enough:
            self._leave_ties(total)
            return
        self.offset, self._known = 0, found
        if there_are != were:
            self._there_were, self._seen_since = there_are, Seen()

    def _add_tied(self, ties: list[str]) -> None:
        self._tied.add(ties)
        if self._seen_since is not self._tied:
            self._seen_since.add(ties)

    def _look_behind(self, offset: int) -> None:
        """A page that holds nothing but the row that is read again may be cut, and totals may end there."""
        self._overlaps, self._looks_behind, self.offset = False, True, offset

    def _leave_undated(self, response: Response, last: datetime) -> None:
        """On to the orders with a date that come behind others without."""
        self.shape.undated_leads += 1
        if self._text(last) == self._start_text or self.shape.undated_leads > MOST_UNDATED_LEADS:
            raise self.shape.not_understood(
                response,
                f"orders without {self.shape.cursor_path} come before those with one",
                "the sort in sources.orders.params",
            )
        self._move_to(last, left=None)
        self._edge = last

    def _skip_nothing(self, response: Response, at: int, total: int) -> None:
        """On to what is behind the row that was read again; if that is another, to the first once more."""
        if not self._keys:
            self._ask_again(response, len(self._tied), total)
        elif self._overlaps and self._keys == [self._last_key]:
            self._overlaps = False
            self.offset = at + 1
        else:
            self._mismatch()
            self.offset = 0

    def _mismatch(self) -> None:
        """A row has moved away, or the rows come in another order each time."""
        self._confirms = False
        self._seen_since = Seen()
        self._mismatches += 1
        self._overlaps = self._mismatches <= READ_AGAIN

    def _leave_ties(self, total: int | None) -> None:
        """On to the next timestamp. Orders without one come last, so that nothing follows them."""
        # Behind the last days of the calendar there is nothing: such a date stands for none.
        if self._undated or self._start > LATEST:
            self._has_next_page = False
        else:
            left = 0  # the next page tells
            # Where windows overlap, one that starts here would read the timestamp once more.
            if total is not None and self.shape.total_is_trusted and self.shape.start_is_included:
                left = max(0, total - len(self._tied))
            self._move_to(self._start + self._step, left)

    def _move_to(self, start: datetime, left: int | None) -> None:
        """On to a later start, unless the window ends there, or what is left is for others to read."""
        end = self._window.end
        if (end is not None and start >= end) or self.windows.cut(
            self._window, self._since or start, start, self._read, left
        ):
            self._has_next_page = False
        else:
            self._go_to(start)

    def _go_to(self, start: datetime) -> None:
        self._start = start
        self._start_text = self._text(start)
        self.offset = 0
        self._edge = None
        self._undated = False
        self._overlaps = True
        self._looks_behind = False
        self._mismatches = 0
        self._last_key = None
        self._tied = self._seen_since = Seen()  # one, while they are the same: of millions
        self._known = 0
        self._there_were = None
        self._readings = 0
        self._check_at = 2 * self.paging.page_size
        self._quiet_passes = 0
        self._repeats = 0
        self._first_keys = []
        self._confirms = False

    def _judge_total(self, total: int | None, rows: int) -> None:
        """Asked again for one order only: the number of orders stays, the size of a page does not; unless
        the page is as large as before."""
        assert self._probed is not None
        before, last, self._keys = self._probed
        self._probed = None
        if total is not None and total > max(1, rows):
            self.shape.total_is_trusted = True
            if total <= before and self._is_whole(before):
                self._has_next_page = False
                return
        else:
            self.shape.reports_total = False
        self._continue_from(last, before, None)

    def _judge_sort(
        self, response: Response, rows: list[Any], times: list[datetime], total: int | None
    ) -> None:
        """Whether nothing is older than the first page, whose orders share one timestamp: so it is with
        the oldest and with the newest of them all, and what is older would be left behind. Asked for what
        ends there, or a step earlier, where that includes its end; or, where nothing ends, for what comes
        behind the page, as long as it is as old."""
        assert self._unproven is not None
        first, offset = self._unproven, self._unproven.offset if self._unproven.end is None else 0
        if not rows and total is not None and total > offset:
            self._ask_again(response, 0, total)
            return
        self._unproven = None
        if not any(first.last - time >= self._step for time in times):
            if times and first.end is not None:  # from behind the end that was named
                can_end_earlier = first.end == first.last and first.last - EARLIEST >= self._step
                end = first.last - self._step if can_end_earlier else None
                self._unproven = replace(first, end=end)
                return
            is_as_old = offset and times and times[-1] - first.last < self._step
            if is_as_old and self._keys != first.keys:
                self._unproven = replace(first, offset=offset + len(rows))
                return
            self.shape.sort_is_trusted = True
            self._continue_from(first.last, len(first.keys), first.left)
            return
        self._found_older += 1
        if self._found_older > READ_AGAIN:
            raise self._not_sorted(response)
        self._go_to(self._start)  # it may have become visible a moment ago: then it comes first now

    def _not_sorted(self, response: Response) -> ResponseNotUnderstood:
        return self.shape.not_understood(
            response,
            f"its orders are not sorted by {self.shape.cursor_path}",
            'the sort in sources.orders.params, or set sources.orders.paging = "offset"',
        )

    def _looks_behind_edge(self, times: list[datetime]) -> bool:
        """Whether to ask once more from one step earlier: the row the window now starts with is not
        on the page. Either it has just changed, or the API excludes the start, and then the others
        of its timestamp are missing as well."""
        assert self._edge is not None
        is_there = self._edge in times
        if self._probes_edge:
            self._probes_edge = False
            self._excludes_start = is_there
            self._start_text = self._text(self._start)
        elif not is_there and not self._excludes_start:
            self._probes_edge = True
            self._start_text = write_time(self._edge - self._step, self._format)
            return True
        elif not self._excludes_start and floor(self._edge, self._step) == self._edge:
            self.shape.start_is_included = True
        self._edge = None
        return False

    def _holds_start(self, times: list[datetime]) -> bool:
        """Whether a page begins with what its request was to begin with, to the microsecond."""
        start = read_time(self._start_text, self._format)
        return bool(times) and times[0] == start == floor(start, self._step)

    def _may_be_cut(self, rows: int) -> bool:
        """Whether a page is as large as was asked for, or, where nothing tells how many there are, as large
        as the server may give."""
        is_largest = self.shape.may_be_capped and rows >= self.shape.largest_page
        return rows >= self.paging.page_size or (is_largest and not self.shape.total_is_trusted)

    def _trust_filter(self, times: list[datetime]) -> None:
        """A filter that reads dates in another time zone leaves out what is dated close to the start."""
        start = read_time(self._start_text, self._format)
        if times and times[0] - start < max(SMALLEST_OFFSET, 3 * self._step):
            self.shape.filter_is_trusted = True

    def _seek(self) -> None:
        """Ask for an order that was read, by its date, if no page has shown so far that the filter reads
        dates as they are written. One in the middle: those that come first are the likeliest to change."""
        self._has_next_page = True
        self._sought = self._dated[len(self._dated) // 2]
        self._go_to(self._sought - self._step)

    def _judge_filter(
        self, response: Response, rows: list[Any], times: list[datetime], total: int | None
    ) -> None:
        """Whether the order that was asked for is there. If not, it may just have changed, or be gone."""
        if not rows and total:
            self._ask_again(response, 0, total)
            return
        self._trust_filter(times)
        if self.shape.filter_is_trusted or (not times and self._window.end is not None):
            self._has_next_page = False
            return
        self._sought_in_vain += 1
        if self._sought_in_vain >= ASK_AGAIN:
            raise self.shape.not_understood(
                response,
                f"its filter leaves out orders that are dated from {self._start_text} on and that an "
                "answer before held, as if it read dates in another time zone",
                "the filter in sources.orders.params, or sources.orders.cursor_format",
            )
        self._dated = times or self._dated
        self._seek()

    def _text(self, time: datetime) -> str:
        """A time as the start of a window that includes it."""
        return write_time(time - self._step if self._excludes_start else time, self._format)

    def _is_tied(self, value: Any) -> bool:
        try:
            return self._text(read_time(value, self._format)) == self._start_text
        except UnreadableTime:
            return True

    def _times(self, response: Response, rows: list[Any]) -> list[datetime]:
        """The times of a page. Orders without a readable one do not move the window.

        Compared as precisely as requests are written, but at least to the second: an API that is
        asked in seconds may sort in seconds, though its answers hold milliseconds.
        """
        step = min(self._step, ONE_SECOND)
        start = read_time(self._start_text, self._format)
        end = self._window.end
        lag_start = self._lag_start()
        is_past = end is not None and end <= lag_start
        times: list[datetime] = []
        for row in rows:
            try:
                time = read_time(value_at(row, self.shape.cursor_path), self._format)
            except UnreadableTime:
                continue
            if is_past and time > lag_start:
                continue  # changed a moment ago: it is at the place of its earlier date
            if times and times[-1] - time >= step:
                raise self._not_sorted(response)
            if not times and start - time >= self._step:
                raise self.shape.not_understood(
                    response,
                    f"it holds orders from before the window's start, {self._start_text}",
                    'the filter in sources.orders.params, or set sources.orders.paging = "offset"',
                )
            if (
                end is not None
                and self.windows.can_end
                and time - end >= max(self._step, ONE_SECOND)
            ):
                raise self.shape.not_understood(
                    response,
                    f"it holds orders from behind the window's end, {write_time(end, self._format)}",
                    "the parameter in sources.orders.params that holds {end}, or take it out if the "
                    "API has none",
                )
            times.append(time)
        return times
