"""Reading all pages of a window, while orders change under the reader.

Plain offset paging skips an order whenever one before it moves away (its modification date changes,
or it is deleted). `SeekPaginator` does not: the start of the window moves to the last row read, and
the offset serves only rows that share that one timestamp. `OffsetPaginator` is for an API that can
neither filter nor sort by the modification date; it counts, and reads again when the count is off.

Windows are half-open: `{start}` is included, `{end}` is excluded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dlt.common import jsonpath
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from requests import Request, Response

from orders_dagster.cursor import UnreadableTime, in_steps, read_time, value_at, write_time
from orders_dagster.errors import PagesDisagree, ResponseNotUnderstood

READ_AGAIN = 3
"""How often a page or a window that does not add up is read again before the run stops."""


@dataclass(frozen=True)
class Paging:
    """How one API pages; the same for all windows of a run.

    Attributes:
        params: query parameters whose values hold `{start}`, by name.
        redact: makes a URL showable.
    """

    limit_param: str
    offset_param: str
    page_size: int
    data_selector: str
    total_path: str
    primary_key: str
    cursor_path: str
    cursor_format: str
    params: Mapping[str, str]
    redact: Callable[[str | None], str]


class OrdersPaginator(BasePaginator):
    """What both ways of paging share: checking that an answer is a page, and counting."""

    def __init__(self, paging: Paging) -> None:
        super().__init__()
        self.paging = paging
        self.pages = 0
        self.rows = 0
        self.first_total: int | None = None
        self.offset = 0
        self._disagreements = 0

    def init_request(self, request: Request) -> None:
        request.params = dict(request.params or {})
        request.params[self.paging.limit_param] = self.paging.page_size
        self._set_offset(request)

    def update_request(self, request: Request) -> None:
        self._set_offset(request)

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        rows = data or []
        total = self._total(response)
        if self.first_total is None:
            self.first_total = total
        self.pages += 1
        self.rows += len(rows)
        if not rows:
            self._check_selector(response)
        self._turn_page(response, rows, total)

    def _turn_page(self, response: Response, rows: list[Any], total: int | None) -> None:
        raise NotImplementedError

    def _set_offset(self, request: Request) -> None:
        request.params[self.paging.offset_param] = self.offset

    def _disagree(self, response: Response, seen: int, total: int) -> None:
        self._disagreements += 1
        if self._disagreements > READ_AGAIN:
            url = self.paging.redact(response.url)
            raise PagesDisagree(url=url, seen=seen, total=total, attempts=self._disagreements)

    def _total(self, response: Response) -> int | None:
        if not self.paging.total_path:
            return None
        found = jsonpath.find_values(self.paging.total_path, response.json())
        value = found[0] if found else None
        if isinstance(value, str) and value.strip().isdigit():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._not_understood(
                response,
                f"there is no count at {self.paging.total_path!r}",
                'sources.orders.total_path ("" if the API reports no total)',
            )
        return value

    def _check_selector(self, response: Response) -> None:
        """dlt takes a body without the selector for an empty page."""
        if not jsonpath.find_values(self.paging.data_selector, response.json()):
            raise self._not_understood(
                response,
                f"there is nothing at {self.paging.data_selector!r}",
                "sources.orders.data_selector",
            )

    def _not_understood(
        self, response: Response, found: str, setting: str
    ) -> ResponseNotUnderstood:
        return ResponseNotUnderstood(
            url=self.paging.redact(response.url),
            status=response.status_code,
            found=f"{found}; the answer is {shape(response.json())}",
            setting=setting,
        )


class SeekPaginator(OrdersPaginator):
    """Moves the start of the window to the last row read; the offset counts only its ties."""

    def __init__(self, paging: Paging, start: datetime) -> None:
        super().__init__(paging)
        self._start_text = write_time(start, paging.cursor_format)

    def update_request(self, request: Request) -> None:
        super().update_request(request)
        for name, template in self.paging.params.items():
            request.params[name] = template.replace("{start}", self._start_text)

    def _turn_page(self, response: Response, rows: list[Any], total: int | None) -> None:
        last = self._last_time(response, rows)
        if not rows and total is not None and total > self.offset:
            self._disagree(response, self.offset, total)  # ask for the same page again
            return
        if rows:
            self._disagreements = 0
        seen = self.offset + len(rows)
        is_full = len(rows) >= self.paging.page_size
        # A total that is only the size of this page must not end the reading of a full one.
        self._has_next_page = bool(rows) and (total is None or seen < total or is_full)
        text = write_time(last, self.paging.cursor_format) if last else self._start_text
        if text == self._start_text:
            self.offset = seen
        else:
            self._start_text, self.offset = text, 0

    def _last_time(self, response: Response, rows: list[Any]) -> datetime | None:
        """The newest time of a page. Orders without a readable one do not move the window."""
        # Compared as precisely as requests are written: an API that is asked in seconds may sort in
        # seconds, though its answers hold milliseconds.
        cursor_format = self.paging.cursor_format
        start = in_steps(read_time(self._start_text, cursor_format), cursor_format)
        last: datetime | None = None
        for row in rows:
            try:
                time = read_time(value_at(row, self.paging.cursor_path), self.paging.cursor_format)
            except UnreadableTime:
                continue
            step = in_steps(time, cursor_format)
            if last is not None and step < in_steps(last, cursor_format):
                raise self._not_understood(
                    response,
                    f"its orders are not sorted by {self.paging.cursor_path}",
                    'the sort in sources.orders.params, or set sources.orders.paging = "offset"',
                )
            if last is None and step < start:
                raise self._not_understood(
                    response,
                    f"it holds orders from before the window's start, {self._start_text}",
                    'the filter in sources.orders.params, or set sources.orders.paging = "offset"',
                )
            last = time if last is None else max(last, time)
        return last


class OffsetPaginator(OrdersPaginator):
    """Steps by the rows received, and holds the orders seen against the total."""

    def __init__(self, paging: Paging) -> None:
        super().__init__(paging)
        self._seen: set[int] = set()

    def _turn_page(self, response: Response, rows: list[Any], total: int | None) -> None:
        self._seen.update(
            hash(str(value_at(row, self.paging.primary_key) or f"{self.offset + n} of none"))
            for n, row in enumerate(rows)
        )
        self.offset += len(rows)
        is_full = len(rows) >= self.paging.page_size
        if rows and (total is None or self.offset < total or is_full):
            return
        if total is not None and len(self._seen) < total:
            self._disagree(response, len(self._seen), total)
            self.offset = 0
            return
        self._has_next_page = False


def shape(body: Any) -> str:
    """What a body looks like, by its keys: names of fields only, never their values."""
    if isinstance(body, dict):
        keys = ", ".join(sorted(str(key)[:40] for key in body)[:20])
        return f"an object with the keys {keys}" if keys else "an object without keys"
    if isinstance(body, list):
        return f"a list of {len(body)}"
    return "neither an object nor a list"
