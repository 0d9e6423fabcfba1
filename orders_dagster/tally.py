"""Before a load: whether as many orders have been read as the API says there are.

A page in order does not prove the sort. An API that sorts by the id shows one where those with the lowest
ids were touched last, one after the other; the reading goes on from the last date, and what is older than
that would stay away for good.
"""

from __future__ import annotations

from datetime import timedelta

from orders_dagster.api.count import ApiCounts
from orders_dagster.cursor import step_of
from orders_dagster.errors import OrdersError, PagesDisagree
from orders_dagster.source import Reading
from orders_dagster.span import Span

LEAST = 10
PART = 50
"""How many may be missing: ten, or one in fifty. A copy of the data may count what has moved since."""


def check_tally(reading: Reading) -> None:
    """Hold what has been read against the API's total of the same time, up to the lag: behind that, orders
    only move to later dates. A request for each load, none where the first page's total has been reached.

    A step less, since some APIs include the end that is asked for, be it a day, and with it a timestamp of
    which a part is read.

    Raises:
        PagesDisagree: there are many more.
    """
    settings, windows = reading.settings, reading.windows
    read, first = windows.orders, windows.first_total
    is_reached = windows.is_complete and (first is None or _is_about(read, first))
    can_ask = settings.paging == "seek" and windows.can_end and reading.shape.total_is_trusted
    visible = reading.started_at - timedelta(seconds=settings.lag_seconds)
    ends = visible, windows.unread_from, reading.end
    end = min(time for time in ends if time is not None) - step_of(settings.cursor_format)
    if is_reached or not can_ask or end <= reading.start:
        return
    try:
        there = ApiCounts(settings, reading.connection).total_in(Span(reading.start, end))
    except OrdersError:
        return  # what has been read is in order, and may be loaded; the next request ends the run
    if not _is_about(read, there):
        url = reading.connection.session.redact(settings.base_url + settings.path)
        raise PagesDisagree(url=url, seen=read, total=there, attempts=1)


def _is_about(read: int, there: int) -> bool:
    return there - read <= max(LEAST, there // PART)
