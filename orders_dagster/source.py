"""The source: dlt's `rest_api_source` with the reference configuration, one dictionary.

What differs from stock dlt is in three places of it: `auth` renews its token (api/auth.py),
`session` retries what time can cure (api/session.py), and `paginator` skips no order that moves
while it is read (api/paging.py). A step behind them makes rows of orders, sends what cannot be merged
to `orders_rejected`, and keeps the watermark (step.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dlt.extract.source import DltSource
from dlt.sources.rest_api import rest_api_source

from orders_dagster.api.connect import connect
from orders_dagster.api.page import PageShape
from orders_dagster.api.paging import (
    Checkpoint,
    OffsetPaginator,
    OrdersPaginator,
    Paging,
    SeekPaginator,
)
from orders_dagster.api.query import first_request, next_requests
from orders_dagster.api.session import ApiSession, Traffic
from orders_dagster.columns import ORDERS, column_name
from orders_dagster.rows import Rows
from orders_dagster.settings import OrdersSettings
from orders_dagster.step import page_step


@dataclass
class OrdersSource:
    """One reading of the API: the dlt source, and what is known about the reading while it runs."""

    dlt_source: DltSource
    rows: Rows
    paginator: OrdersPaginator
    traffic: Traffic


def orders_source(
    settings: OrdersSettings,
    *,
    start: datetime | None = None,
    rows: Rows | None = None,
    traffic: Traffic | None = None,
    on_page: Callable[[int], None] = lambda orders: None,
    started_at: datetime | None = None,
) -> OrdersSource:
    """Build the source. Touches neither the network nor the warehouse until it is iterated.

    Args:
        start: where the reading starts, UTC; `initial_value` by default.
        rows, traffic: what turns orders into rows, and counts what goes over the wire; new ones by
            default.
        on_page: called for each page with its number of orders, in the thread that extracts.
        started_at: the time the watermark never passes, UTC; now by default.
    """
    traffic = traffic or Traffic()
    session, auth = connect(settings, traffic)
    rows = rows or Rows(settings.primary_key, settings.cursor_path, settings.cursor_format)
    started_at = started_at or datetime.now(UTC)
    start = start or settings.initial_value
    paginator = _paginator(settings, session, start, started_at)
    config: dict[str, Any] = {
        "client": {"base_url": settings.base_url, "auth": auth, "session": session},
        "resource_defaults": {
            "primary_key": column_name(settings.primary_key),
            "write_disposition": "merge",
        },
        "resources": [
            {
                "name": ORDERS,
                "endpoint": {
                    # As they are sent; dlt would take them for a placeholder of its own.
                    "path": settings.path.replace("{", "%7B").replace("}", "%7D"),
                    "data_selector": settings.data_selector,
                    "params": first_request(settings, start),
                    "paginator": paginator,
                    # No "incremental": step.py keeps the watermark, and says why.
                },
                # Of several versions of an order in one load, the newest is merged.
                "columns": {column_name(settings.cursor_path): {"dedup_sort": "desc"}},
            }
        ],
    }
    dlt_source = rest_api_source(config, name=ORDERS)  # type: ignore[arg-type]
    orders = dlt_source.resources[ORDERS]
    dlt_source.schema.remove_type_detection("iso_timestamp")  # values.py has decided
    dlt_source.schema.update_table(orders.compute_table_schema())  # see declare_decimal
    orders.add_step(page_step(rows, paginator, started_at, on_page), insert_at=1)
    return OrdersSource(dlt_source, rows, paginator, traffic)


def inert_source() -> DltSource:
    """The source as Dagster needs it to define the asset: its names, no settings, no secrets."""
    return orders_source(OrdersSettings()).dlt_source


def _paginator(
    settings: OrdersSettings, session: ApiSession, start: datetime, started_at: datetime
) -> OrdersPaginator:
    paging = Paging(
        limit_param=settings.limit_param,
        offset_param=settings.offset_param,
        page_size=settings.page_size,
        params=next_requests(settings.params, settings.cursor_format),
        shape=page_shape(settings, session),
    )
    if settings.paging == "offset":
        return OffsetPaginator(paging)
    checkpoint = Checkpoint(settings.checkpoint_orders, not_after=started_at)
    return SeekPaginator(paging, start, checkpoint)


def page_shape(settings: OrdersSettings, session: ApiSession) -> PageShape:
    """Where the orders and their number are in an answer, as the settings say."""
    return PageShape(
        data_selector=settings.data_selector,
        total_path=settings.total_path,
        primary_key=settings.primary_key,
        cursor_path=settings.cursor_path,
        cursor_format=settings.cursor_format,
        redact=session.redact,
    )
