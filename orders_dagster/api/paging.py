"""Reading all pages of a window, while orders change under the reader.

Plain offset paging skips an order whenever one before it moves away (its modification date changes,
or it is deleted). Seek paging does not (seek.py). `OffsetPaginator` is for an API that can neither filter
nor sort by the modification date; it counts, and reads again when the count is off.

Windows are half-open: `{start}` is included, `{end}` is excluded. dlt copies the paginator for each
window, or part of one, and the copies run in threads of their own; what they share is in `Paging` and
`Windows`, and the one of the next part takes over what that of the part before knew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dlt.sources.helpers.rest_client.paginators import BasePaginator
from requests import Request, Response

from orders_dagster.api.page import PageShape
from orders_dagster.api.query import in_window
from orders_dagster.cursor import value_at, write_time
from orders_dagster.errors import PagesDisagree, ResponseNotUnderstood
from orders_dagster.seen import Seen, identities
from orders_dagster.windows import Window, Windows

READ_AGAIN = 3
"""How often a page or a window that does not add up is read again before the run stops."""

MOST_TIMES_SEEN = 50
"""How many rows for each order there may be on the pages of one listing. Where each page has another order
of rows, there are 1.6 on average; some APIs list each version of an order."""

TRIED_OFFSET = 2
"""What an offset is tried with before it is needed: as a page, the first or the second are none of it."""

WINDOW = "orders_dagster_window"
"""The parameter that tells a paginator which window it reads; taken out before anything is sent."""


@dataclass(frozen=True)
class Paging:
    """How one API pages; the same for all windows of a run.

    Attributes:
        params: query parameters as texts, in which `{start}` and `{end}` stand.
        shape: where things are in an answer.
        lag: how long a change may take until the API shows it.
        stop: told why the run fails, so that the windows in other threads end, too.
    """

    limit_param: str
    offset_param: str
    page_size: int
    params: Mapping[str, str]
    shape: PageShape
    lag: timedelta
    stop: Callable[[Exception], None]


class OffsetTrial:
    """Whether the offset skips as many orders as it says, told from a page and the same two orders on.

    If it counts pages, the second one holds none of the first one's orders. So it may be where orders
    come in another order each time; hence the first page is read again, and has to be much the same.
    """

    def __init__(self, keys: list[str]) -> None:
        self._first = keys
        self._reads_first = False
        self._misses = 0

    @property
    def offset(self) -> int:
        """What to ask for next."""
        return 0 if self._reads_first else TRIED_OFFSET

    def judge(self, keys: list[str]) -> bool | None:
        """A verdict on the page that was asked for; None if there has to be another one."""
        shared = len({*keys} & {*self._first})
        if not self._reads_first:
            self._reads_first = not shared
            return True if shared else None
        self._reads_first = False
        before, self._first = self._first, keys  # one of them may have moved away
        if 2 * shared < len(before) or len(keys) <= TRIED_OFFSET:
            return True  # nobody can tell
        self._misses += 1
        return False if self._misses > READ_AGAIN else None


class OrdersPaginator(BasePaginator):
    """What both ways of paging share: checking, counting, and giving up when pages never add up."""

    _window: Window

    def __init__(self, paging: Paging, windows: Windows) -> None:
        super().__init__()
        self.paging = paging
        self.shape = paging.shape
        self.windows = windows
        self.offset = 0
        self._readings = 0
        self._empty_pages = 0
        self._check_at = 0
        self._keys: list[str] = []
        self._held = ""
        self._trial: OffsetTrial | None = None
        self._in_part = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> OrdersPaginator:
        """A new one for another window."""
        return type(self)(self.paging, self.windows)

    def init_request(self, request: Request) -> None:
        self._begin(*self.windows.being_read(int(request.params.pop(WINDOW))), in_part=0)
        self.update_request(request)

    def _begin(self, window: Window, before: OrdersPaginator | None, in_part: int) -> None:
        """Read a window, or where the reader of the part before was interrupted; `in_part` orders are in
        this part already."""
        reader = before or deepcopy(self)
        vars(self).update(vars(reader))  # all that it knew goes on here
        self._window, self._in_part, self._has_next_page = window, in_part, True
        if before is None:
            self._start_window()

    def update_request(self, request: Request) -> None:
        start, end = self._span()
        params = in_window(self.paging.params, start, end, self.shape.cursor_format)
        params[self.paging.limit_param] = str(self.paging.page_size)
        params[self.paging.offset_param] = str(self._trial.offset if self._trial else self.offset)
        request.params = params

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        try:
            self._read_page(response, data or [])
        except Exception as error:
            self.paging.stop(error)
            raise

    def _read_page(self, response: Response, rows: list[Any]) -> None:
        self.shape.check(response, rows, is_first=self.windows.pages == 0)
        total = self.shape.total(response, rows)
        if total is not None and total < len(rows):
            # A number of something else, or one that ends somewhere; or, once it has been more than a page,
            # one that was counted a moment before the page.
            self.shape.reports_total = self.shape.total_is_trusted
            total = None
        self.windows.page(len(rows), total)
        keys = [str(value_at(row, self.shape.primary_key)) for row in rows]
        self.shape.note_size(keys)
        if self._trial is not None:
            self._judge_offset(response, identities(keys, self._trial.offset))
            rows.clear()  # they are read at their place
            return
        if rows:
            self._empty_pages = 0
        was_first = self.offset == 0
        # Orders without an id are told apart by what they hold.
        held = repr(rows) if set(keys) == {"None"} else ""
        is_repeated = self.offset > 0 and bool(rows) and (keys, held) == (self._keys, self._held)
        self._keys, self._held = keys, held
        self._turn_page(response, rows, total, is_repeated)
        self._in_part += len(rows)
        if not self._has_next_page:
            self.windows.read(self._window)
            following = self.windows.go_on(self._in_part)
            if following is not None:
                self._begin(*following, in_part=self._in_part)
            return
        if was_first and self.offset > TRIED_OFFSET and not self.shape.offset_is_trusted:
            self._trial = OffsetTrial(identities(self._keys, 0))
        if self.windows.interrupt(self._window, self, self._read_until, self._in_part):
            self._has_next_page = False

    def _judge_offset(self, response: Response, keys: list[str]) -> None:
        assert self._trial is not None
        is_well = self._trial.judge(keys)
        if is_well is False:
            raise self.shape.not_understood(
                response,
                f"at offset {TRIED_OFFSET} it holds no order of its first page, as if it counted pages",
                "sources.orders.offset_param to a parameter that skips as many orders as it says",
            )
        if is_well:
            self.shape.offset_is_trusted = True
            self._trial = None

    def _start_window(self) -> None:
        """Go to the start of the window."""

    @property
    def _read_until(self) -> datetime:
        """All orders of the window that were modified before this time have been read."""
        return self._window.start

    def _span(self) -> tuple[str, str | None]:
        """The start and the end of the window as requests name them."""
        form = self.shape.cursor_format
        end = self._window.end
        return write_time(self._window.start, form), None if end is None else write_time(end, form)

    def _turn_page(
        self, response: Response, rows: list[Any], total: int | None, is_repeated: bool
    ) -> None:
        raise NotImplementedError

    def _ask_again(self, response: Response, seen: int, total: int) -> None:
        """For the same page, which is empty by mistake: there are more."""
        self._empty_pages += 1
        if self._empty_pages > READ_AGAIN:
            raise self._disagreement(response, seen, total, self._empty_pages)

    def _disagreement(
        self, response: Response, seen: int, total: int, attempts: int
    ) -> PagesDisagree:
        url = self.shape.redact(response.url)
        return PagesDisagree(url=url, seen=seen, total=total, attempts=attempts)

    def _check_offset(self, response: Response, seen: Seen) -> None:
        """Whether pages at growing offsets go on to other orders, or show the same ones for ever. To count
        the orders takes as long as to read pages, so the offset has to have doubled since."""
        if self.offset < self._check_at:
            return
        self._check_at = 2 * self.offset
        if self.offset > MOST_TIMES_SEEN * len(seen) + 2 * self.paging.page_size:
            raise self.shape.not_understood(
                response,
                f"the pages up to offset {self.offset} hold the same {len(seen)} orders again and again",
                "sources.orders.offset_param",
            )

    def _offset_is_ignored(self, response: Response) -> ResponseNotUnderstood:
        return self.shape.not_understood(
            response,
            f"the page at offset {self.offset} is the one before it again",
            "sources.orders.offset_param",
        )


class OffsetPaginator(OrdersPaginator):
    """Steps by the rows received, and holds the orders seen against the total."""

    def __init__(self, paging: Paging, windows: Windows) -> None:
        super().__init__(paging, windows)
        self._seen = Seen()
        self._largest = 0
        self._repeats = 0

    def _turn_page(
        self, response: Response, rows: list[Any], total: int | None, is_repeated: bool
    ) -> None:
        is_all = self.shape.total_is_trusted and total is not None and self.offset >= total
        if is_repeated and is_all and len(self._seen) >= (total or 0):
            rows.clear()  # behind the end, some answer with the last page
            self._has_next_page = False
            return
        # Once it may come again: an order before it has made room for another.
        self._repeats = self._repeats + 1 if is_repeated else 0
        if self._repeats > READ_AGAIN:
            raise self._offset_is_ignored(response)
        self._seen.add(identities(self._keys, self.offset))
        self.offset += len(rows)
        self.shape.trust(total, self.offset)
        self._largest = max(self._largest, len(rows))
        # Behind a full page there may be more, whatever the total says: some end at 10,000.
        is_full = len(rows) == self._largest
        is_all = self.shape.total_is_trusted and total is not None and self.offset >= total
        if rows and (is_full or not is_all):
            if not is_repeated:
                self._check_offset(response, self._seen)
            return
        if total is not None and len(self._seen) < total:
            if not rows and self.offset < total:
                self._ask_again(response, len(self._seen), total)
                return
            self._readings += 1
            if self._readings > READ_AGAIN:
                raise self._disagreement(response, len(self._seen), total, self._readings)
            self.offset = 0
            return
        self._has_next_page = False
