"""Reading all pages of a window, while orders change under the reader.

Plain offset paging skips an order whenever one before it moves away (its modification date changes,
or it is deleted). `SeekPaginator` does not: the start of the window moves to the last row read, and
the offset serves only rows that share that one timestamp. `OffsetPaginator` is for an API that can
neither filter nor sort by the modification date; it counts, and reads again when the count is off.

Windows are half-open: `{start}` is included, `{end}` is excluded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dlt.sources.helpers.rest_client.paginators import BasePaginator
from requests import Request, Response

from orders_dagster.api.page import PageShape
from orders_dagster.cursor import UnreadableTime, read_time, step_of, value_at, write_time
from orders_dagster.errors import PagesDisagree, ResponseNotUnderstood

READ_AGAIN = 3
"""How often a page or a window that does not add up is read again before the run stops."""

ONE_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Paging:
    """How one API pages; the same for all windows of a run.

    Attributes:
        params: query parameters whose values hold `{start}`, by name.
        shape: where things are in an answer.
    """

    limit_param: str
    offset_param: str
    page_size: int
    params: Mapping[str, str]
    shape: PageShape


@dataclass(frozen=True)
class Checkpoint:
    """Where a reading may stop, to be loaded and to go on from there.

    Attributes:
        orders: not before so many have been read.
        not_after: not behind this time, UTC, which the watermark never passes: the next reading would
            start there and read the same again.
    """

    orders: int
    not_after: datetime


class OrdersPaginator(BasePaginator):
    """What both ways of paging share: offsets, counting, and noticing an offset that is ignored."""

    def __init__(self, paging: Paging) -> None:
        super().__init__()
        self.paging = paging
        self.shape = paging.shape
        self.pages = 0
        self.rows = 0
        self.is_complete = True
        self.first_total: int | None = None
        self.offset = 0
        self._total_is_trusted = False
        self._disagreements = 0
        self._keys: list[Any] = []

    def init_request(self, request: Request) -> None:
        request.params = dict(request.params or {})
        request.params[self.paging.limit_param] = self.paging.page_size
        self.update_request(request)

    def update_request(self, request: Request) -> None:
        request.params[self.paging.offset_param] = self.offset

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        rows = data or []
        self.shape.check(response, rows, is_first=self.pages == 0)
        total = self.shape.total(response)
        if self.first_total is None:
            self.first_total = total
        self.pages += 1
        self.rows += len(rows)
        keys = [str(value_at(row, self.shape.primary_key)) for row in rows]
        is_repeated = self.offset > 0 and bool(rows) and keys == self._keys
        self._keys = keys
        self._turn_page(response, rows, total, is_repeated)

    def _turn_page(
        self, response: Response, rows: list[Any], total: int | None, is_repeated: bool
    ) -> None:
        raise NotImplementedError

    def _disagree(self, response: Response, seen: int, total: int) -> None:
        self._disagreements += 1
        if self._disagreements > READ_AGAIN:
            url = self.shape.redact(response.url)
            raise PagesDisagree(url=url, seen=seen, total=total, attempts=self._disagreements)

    def _offset_is_ignored(self, response: Response) -> ResponseNotUnderstood:
        return self.shape.not_understood(
            response,
            f"the page at offset {self.offset} is the one before it again",
            "sources.orders.offset_param",
        )


class SeekPaginator(OrdersPaginator):
    """Moves the start of the window to the last row read; the offset counts only its ties.

    Three things that an API may do are noticed and coped with: it reports the size of the page for
    the total, it excludes the start of the window, it ignores the offset where it is not needed.
    """

    def __init__(
        self, paging: Paging, start: datetime, checkpoint: Checkpoint | None = None
    ) -> None:
        super().__init__(paging)
        self._checkpoint = checkpoint
        self._format = paging.shape.cursor_format
        self._step = step_of(self._format)
        self._start_text = write_time(start, self._format)
        self._edge: datetime | None = None  # the last row read, which has to appear again
        self._probes_total = False
        self._probes_edge = False
        self._excludes_start = False

    def update_request(self, request: Request) -> None:
        super().update_request(request)
        for name, template in self.paging.params.items():
            request.params[name] = template.replace("{start}", self._start_text)

    def _turn_page(
        self, response: Response, rows: list[Any], total: int | None, is_repeated: bool
    ) -> None:
        times = self._times(response, rows)
        last = max(times, default=None)
        seen = self.offset + len(rows)
        if is_repeated:
            # All there is has been read, unless a full page of one timestamp hides what follows.
            hides = len(rows) >= self.paging.page_size or (total is not None and total > seen)
            if hides and not self._probes_total:
                raise self._offset_is_ignored(response)
            self._has_next_page = False
            return
        if self._edge is not None and self.offset == 0 and self._looks_behind_edge(times):
            return
        if self._probes_total:
            # A page behind what the total called the end: it was the size of the page.
            self._probes_total = False
            if not rows:
                self._has_next_page = False
                return
            self.shape.reports_total = False
            total = None
        if not rows:
            if total is not None and total > self.offset:
                self._disagree(response, self.offset, total)  # ask for the same page again
            else:
                self._has_next_page = False
            return
        self._disagreements = 0
        self._total_is_trusted = self._total_is_trusted or (total is not None and total > seen)
        if total is not None and seen >= total:
            if self._total_is_trusted and len(rows) < self.paging.page_size:
                self._has_next_page = False
                return
            if not self._total_is_trusted:
                self._probes_total, self.offset = True, seen
                return
        self._move_to(last, seen)

    def _move_to(self, last: datetime | None, seen: int) -> None:
        """The start to the last row read, or the offset on if that is where the start is."""
        text = self._text(last) if last else self._start_text
        if text == self._start_text:
            self.offset = seen
        else:
            self._start_text, self.offset, self._edge = text, 0, last
            self._stop_at_checkpoint(last)

    def _stop_at_checkpoint(self, last: datetime | None) -> None:
        """All orders before the last row's time have been read, so the next reading can start there."""
        to = self._checkpoint
        if to and last and self.rows >= to.orders and last <= to.not_after:
            self._has_next_page = self.is_complete = False

    def _text(self, last: datetime) -> str:
        return write_time(last - self._step if self._excludes_start else last, self._format)

    def _looks_behind_edge(self, times: list[datetime]) -> bool:
        """Whether to ask once more from one step earlier: the row the window now starts with is not
        on the page. Either it has just changed, or the API excludes the start, and then the others
        of its timestamp are missing as well."""
        assert self._edge is not None
        edge = write_time(self._edge, self._format)
        is_there = any(write_time(time, self._format) == edge for time in times)
        if self._probes_edge:
            self._probes_edge = False
            self._excludes_start = is_there
        elif not is_there and not self._excludes_start:
            self._probes_edge = True
            self._start_text = write_time(self._edge - self._step, self._format)
            return True
        self._edge = None
        return False

    def _times(self, response: Response, rows: list[Any]) -> list[datetime]:
        """The times of a page. Orders without a readable one do not move the window.

        Compared as precisely as requests are written, but at least to the second: an API that is
        asked in seconds may sort in seconds, though its answers hold milliseconds.
        """
        step = min(self._step, ONE_SECOND)
        start = read_time(self._start_text, self._format)
        times: list[datetime] = []
        for row in rows:
            try:
                time = read_time(value_at(row, self.shape.cursor_path), self._format)
            except UnreadableTime:
                continue
            if times and times[-1] - time >= step:
                raise self.shape.not_understood(
                    response,
                    f"its orders are not sorted by {self.shape.cursor_path}",
                    'the sort in sources.orders.params, or set sources.orders.paging = "offset"',
                )
            if not times and start - time >= self._step:
                raise self.shape.not_understood(
                    response,
                    f"it holds orders from before the window's start, {self._start_text}",
                    'the filter in sources.orders.params, or set sources.orders.paging = "offset"',
                )
            times.append(time)
        return times


class OffsetPaginator(OrdersPaginator):
    """Steps by the rows received, and holds the orders seen against the total."""

    def __init__(self, paging: Paging) -> None:
        super().__init__(paging)
        self._seen: set[str] = set()

    def _turn_page(
        self, response: Response, rows: list[Any], total: int | None, is_repeated: bool
    ) -> None:
        if is_repeated:
            raise self._offset_is_ignored(response)
        self._seen.update(
            key if key != "None" else f"{self.offset + n} of none"
            for n, key in enumerate(self._keys)
        )
        self.offset += len(rows)
        self._total_is_trusted = self._total_is_trusted or (
            total is not None and total > self.offset
        )
        if rows and not (self._total_is_trusted and total is not None and self.offset >= total):
            return
        if total is not None and len(self._seen) < total:
            self._disagree(response, len(self._seen), total)
            self.offset = 0
            return
        self._has_next_page = False
