"""How many orders the API has in a span of time, and which have changed after one: a request each."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

from dlt.sources.helpers.rest_client.client import RESTClient
from requests import Response

from orders_dagster.api.connect import Connection, connect
from orders_dagster.api.page import PageShape, compiled
from orders_dagster.api.query import page_params
from orders_dagster.api.session import Traffic
from orders_dagster.cursor import UnreadableTime, floor, read_time, step_of, value_at
from orders_dagster.settings import OrdersSettings
from orders_dagster.span import Span

MOST_ROWS = 20_000
"""How many rows of orders changed within the lag are read: 60 orders a second in 5 minutes."""


class TotalOfThePage(Exception):
    """The API's total is that of the page, not of all that the filter finds."""


class ApiCounts:
    """What the API says of its orders without reading them all."""

    def __init__(self, settings: OrdersSettings, connection: Connection | None = None) -> None:
        session, auth = connection or connect(settings, Traffic())
        self._settings = settings
        self._step = step_of(settings.cursor_format)
        self._client = RESTClient(settings.base_url, auth=auth, session=session)
        self._shape = PageShape.of(settings, session.redact)

    def orders_in(self, span: Span) -> int:
        """The number of orders modified in a span.

        Raises:
            TotalOfThePage: it cannot be told.
            SettingsError, ApiUnavailable: as a synchronisation would.
        """
        total, orders = self._total(span, 1)
        if total == orders > 1 or (total == 1 and self._total(span, 2)[0] > 1):
            raise TotalOfThePage
        return total

    def total_in(self, span: Span) -> int:
        """The same, of an API whose total has been seen to be more than the size of a page."""
        return self._total(span, self._settings.page_size)[0]

    def _total(self, span: Span, limit: int) -> tuple[int, int]:
        """The total of a page, and how many orders are on it: some are larger than asked for."""
        response = self._get(span.start, span.end, limit)
        orders = self._orders_of(response)
        total = self._shape.total(response, orders)
        assert total is not None, "an API without a total is not asked for one"
        return total, len(orders)

    def _orders_of(self, response: Response) -> list[Any]:
        selector = compiled(self._settings.data_selector)
        return self._client.extract_response(response, selector)

    def changed_since(self, start: datetime) -> set[int | str] | None:
        """The keys of the orders modified from a time on; None if they are more than `MOST_ROWS`.

        The start moves to the last row read, as in a synchronisation: an order that changes meanwhile would
        pull another one past an offset.
        """
        found: set[int | str] = set()
        offset = rows = 0
        while rows < MOST_ROWS:
            response = self._get(start, None, self._settings.page_size, offset)
            orders = self._orders_of(response)
            found |= {key for order in orders if (key := self._key(order)) is not None}
            total = self._shape.total(response, orders)
            if not orders or (total is not None and offset + len(orders) >= total):
                return found
            rows += len(orders)
            last = self._last(orders)
            if last is not None and last - self._step > start:
                start, offset = last - self._step, 0  # some filters exclude their start
            else:
                offset += len(orders)
        return None

    def _last(self, orders: list[Any]) -> datetime | None:
        """The date of the last order that has a readable one, in the steps that requests name."""
        form = self._settings.cursor_format
        for order in reversed(orders):
            with suppress(UnreadableTime):
                return floor(
                    read_time(value_at(order, self._settings.cursor_path), form), self._step
                )
        return None

    def _key(self, order: Any) -> int | str | None:
        key = value_at(order, self._settings.primary_key)
        return key if isinstance(key, (int, str)) else None

    def _get(self, start: datetime, end: datetime | None, limit: int, offset: int = 0) -> Response:
        params = page_params(self._settings, start, end, limit, offset)
        return self._client.get(self._settings.path, params=params)
