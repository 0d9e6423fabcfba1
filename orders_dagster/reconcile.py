"""Does the warehouse hold as many orders as the API? And if not, when were they modified?

The numbers are compared in windows of modification dates, up to the watermark less the lag. Where they
differ, the window is halved, and the halves are compared, until a page or two would hold it. That
finds what is missing, and what the API no longer has; it does not find an order that is there in
another version, nor one that is missing where another one is too many in the same window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from orders_dagster.api.count import MOST_ROWS, ApiCounts, TotalOfThePage
from orders_dagster.api.query import can_end, templates
from orders_dagster.before import watermark
from orders_dagster.cursor import floor, step_of
from orders_dagster.edges import Counted, Edges
from orders_dagster.rejections import MOST
from orders_dagster.settings import OrdersSettings
from orders_dagster.span import Span
from orders_dagster.tables import Counts
from orders_dagster.warehouse import Warehouse

WINDOWS = 24
"""Windows to begin with, of as many orders each; each costs a request, by each run that compares."""

MOST_REQUESTS = 200
"""Where a table has lost orders everywhere, the windows that differ are told as they are by then."""

TOO_MANY_CHANGES = (
    f"More than {MOST_ROWS:,} orders were modified within the lag: give repair_orders a start."
)


@dataclass(frozen=True)
class Difference:
    """A span in which the numbers of orders differ; in the warehouse, those marked deleted do not count."""

    span: Span
    in_api: int
    in_warehouse: int


@dataclass(frozen=True)
class Comparison:
    """What was compared.

    Attributes:
        differences: the oldest first, none if all is well.
        orders: in the warehouse, in all windows, with those that wait in `orders_rejected`.
        undated: rejected orders that are in no window, since their date cannot be read.
        not_compared: why nothing could be compared, None if it was.
    """

    differences: tuple[Difference, ...] = ()
    orders: int = 0
    requests: int = 0
    not_compared: str | None = None
    undated: int = 0


def compare(settings: OrdersSettings, warehouse: Warehouse) -> Comparison:
    """Compare the numbers of orders of the API and the warehouse.

    Raises:
        SettingsError, ApiUnavailable: the API cannot be asked.
    """
    if obstacle := _obstacle(settings):
        return Comparison(not_compared=obstacle)
    newest = watermark(warehouse.pipeline)
    if newest is None:
        return Comparison(not_compared="Nothing has been loaded yet.")
    counts = Counts(warehouse, settings)
    if counts.rejections.are_too_many:
        return Comparison(not_compared=f"More than {MOST:,} orders wait in orders_rejected.")
    step = step_of(settings.cursor_format)
    edge_at = Edges(counts.times_in, step)
    lag = timedelta(seconds=settings.lag_seconds)
    until = edge_at.behind(newest - lag, within=max(lag / 2, step))
    parts = counts.equal_parts(WINDOWS, until)
    spans = windows(settings.initial_value, map(edge_at, parts), until)
    if not spans:
        return Comparison(not_compared="Nothing older than the lag has been loaded yet.")
    api = ApiCounts(settings)
    in_api = Counted(api.orders_in, counts.present_in, step)
    search = _Search(in_api, counts.present_in, edge_at, settings.page_size, settings.workers)
    try:
        found = search.differences(spans)
        if found:
            # Orders that have changed since the load are in the warehouse where they were before.
            moved = api.changed_since(until)
            if moved is None:
                return Comparison(not_compared=TOO_MANY_CHANGES)
            again = [_look_again(difference.span, in_api, counts, moved) for difference in found]
            found = [one for one in again if one is not None]
    except TotalOfThePage:
        return Comparison(
            not_compared="The API's total is that of the page (sources.orders.total_path)."
        )
    orders = counts.present_in(Span(spans[0].start, spans[-1].end))
    undated = counts.rejections.undated() if found else 0
    return Comparison(tuple(found), orders, search.requests, undated=undated)


def windows(initial: datetime, edges: Iterable[datetime], until: datetime) -> list[Span]:
    """All time up to the last one, cut at edges: what is before the oldest order, and the orders."""
    all_edges = {initial, until, *edges}
    ordered = sorted(edge for edge in all_edges if initial <= edge <= until)
    return [Span(start, end) for start, end in pairwise(ordered)]


def _obstacle(settings: OrdersSettings) -> str | None:
    if not settings.total_path:
        return "The API reports no total (sources.orders.total_path)."
    if settings.paging != "seek" or not can_end(templates(settings.params)):
        return "The API cannot be asked for a window: no parameter holds {start} and {end}."
    return None


def _look_again(
    span: Span, counted: Counted, counts: Counts, moved: set[int | str]
) -> Difference | None:
    in_api, in_warehouse = counted(span), counts.present_in(span, without=moved)
    return Difference(span, in_api, in_warehouse) if in_api != in_warehouse else None


class _Search:
    """Halves windows that differ."""

    def __init__(
        self,
        in_api: Counted,
        in_warehouse: Callable[[Span], int],
        edge_at: Edges,
        enough: int,
        workers: int,
    ) -> None:
        self._in_api = in_api
        self._in_warehouse = in_warehouse
        self._edge_at = edge_at
        self._enough = enough
        self._workers = workers
        self.requests = 0

    def differences(self, spans: Sequence[Span]) -> list[Difference]:
        found: list[Difference] = []
        in_api, here = self._asked(spans), list(map(self._in_warehouse, spans))
        if self._in_api.learn(spans, in_api, here):
            in_api = self._asked(spans)
        differing = list(_differing(spans, in_api, here))
        while differing:
            small = [one for one in differing if self._is_small(one)]
            large = [one for one in differing if not self._is_small(one)]
            found += small
            if self.requests + 2 * len(large) > MOST_REQUESTS:
                found += large
                break
            halves = [half for one in large for half in self._halves(one)]
            here = list(map(self._in_warehouse, halves))
            differing = list(_differing(halves, self._asked(halves), here))
        return sorted(found, key=lambda difference: difference.span.start)

    def _asked(self, spans: Sequence[Span]) -> list[int]:
        self.requests += len(spans)
        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(self._in_api, spans))

    def _is_small(self, one: Difference) -> bool:
        return (
            max(one.in_api, one.in_warehouse) <= self._enough
            or one.span.end - one.span.start < 2 * self._edge_at.step
        )

    def _halves(self, one: Difference) -> list[Span]:
        span = one.span
        middle = floor(span.start + (span.end - span.start) / 2, self._edge_at.step)
        edge = self._edge_at(middle)
        if edge <= span.start:
            edge = middle
        return [Span(span.start, edge), Span(edge, span.end)]


def _differing(
    spans: Sequence[Span], in_api: Sequence[int], in_warehouse: Sequence[int]
) -> Iterator[Difference]:
    for span, there, here in zip(spans, in_api, in_warehouse, strict=True):
        if there != here:
            yield Difference(span, there, here)
